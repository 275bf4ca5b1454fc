"""Decoder of the generative student: reconstruct masked patches from visible tokens."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from recon.layers.activation_checkpointing import maybe_checkpoint
from recon.layers.blocks import Block
from recon.layers.position import PositionEmbed
from recon.models.encoder import INIT_STD, Encoding, drop_path_rates


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Decoder(nn.Module):
    """Reconstruct the masked patches from the tokens of the visible patches [1].

    Shapes: tokens (B, V, dim), centers (B, H, 3) of the masked patches -> their points
    (B * H, K, 3), relative to the centers. The last block computes the masked patches only.

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
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        rates = drop_path_rates(drop_path, depth)
        self.blocks = nn.ModuleList(Block(dim, heads=heads, drop_path=p) for p in rates)
        self.apply(_init_xavier)
        self.norm = nn.LayerNorm(dim)
        self.position = PositionEmbed(dim)
        self.project = nn.Linear(dim, 3 * group_size)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.mask_token, std=INIT_STD)

    def forward(
        self, encoding: Encoding, masked_centers: Float[Tensor, "b h 3"]
    ) -> Float[Tensor, "p k 3"]:
        batch, count, _ = masked_centers.shape
        x = torch.cat([encoding.tokens, self.mask_token.expand(batch, count, -1)], 1)
        position = self.position(torch.cat([encoding.centers, masked_centers], 1))
        *blocks, final = self.blocks
        enabled = self.checkpoint_activations
        for block in blocks:
            x = maybe_checkpoint(block, x + position, enabled=enabled)
        x = maybe_checkpoint(final, x + position, count, enabled=enabled)
        points = self.project(self.norm(x))
        return rearrange(points, "b h (k xyz) -> (b h) k xyz", xyz=3)
