"""Coordinates to position embeddings."""

from torch import nn

HIDDEN = 128


class PositionEmbed(nn.Sequential):
    """Embed centres as positions by two linear maps around a GELU; (..., 3) -> (..., dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(3, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, dim))
