"""Position embedding of patch centers."""

from torch import nn

HIDDEN_DIM = 128


class PositionEmbed(nn.Sequential):
    """Embed patch centers by two linear layers with a GELU between them; (..., 3) -> (..., dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(3, HIDDEN_DIM), nn.GELU(), nn.Linear(HIDDEN_DIM, dim))
