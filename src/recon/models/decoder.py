"""The generative student's second half: hidden patches rebuilt from the visible ones."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recon.layers.blocks import Block
from recon.layers.position import PositionEmbed
from recon.models.encoder import INIT_STD, Encoding, drop_path_rates, select


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Decoder(nn.Module):
    """Rebuild hidden patches from the visible patches' tokens [1].

    Shapes: tokens (B, V, dim), all centers (B, G, 3), mask (B, G) -> relative points (B * H, K, 3)
    of the H hidden patches a cloud, in the order of the mask.

    [1] Pang et al., arXiv:2203.06604, section 3.2.
    """

    def __init__(
        self,
        dim: int = 384,
        *,
        depth: int = 4,
        heads: int = 6,
        group_size: int = 32,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        rates = drop_path_rates(drop_path, depth)
        self.blocks = nn.ModuleList(Block(dim, heads=heads, drop_path=p) for p in rates)
        self.apply(_init_xavier)
        self.norm = nn.LayerNorm(dim)
        self.position = PositionEmbed(dim)
        self.project = nn.Linear(dim, 3 * group_size)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.mask_token, std=INIT_STD)

    def forward(
        self,
        encoding: Encoding,
        centers: Float[Tensor, "b g 3"],
        mask: Bool[Tensor, "b g"],
    ) -> Float[Tensor, "h k 3"]:
        hidden = select(centers, mask)
        batch, count, _ = hidden.shape
        x = torch.cat([encoding.tokens, self.mask_token.expand(batch, count, -1)], 1)
        position = self.position(torch.cat([encoding.centers, hidden], 1))
        for block in self.blocks:
            x = block(x + position)
        rebuilt = self.project(self.norm(x[:, -count:]))
        return rearrange(rebuilt, "b h (k xyz) -> (b h) k xyz", xyz=3)
