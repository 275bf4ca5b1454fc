"""Two-tower ablation: separate generative and contrastive transformers."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from recon.layers.activation_checkpointing import maybe_checkpoint
from recon.layers.blocks import Block
from recon.layers.grouping import Patches, PatchGrouper
from recon.layers.patch_embed import PatchEmbed
from recon.layers.position import PositionEmbed
from recon.models.decoder import Decoder
from recon.models.encoder import (
    Encoding,
    build_query_parameters,
    drop_path_rates,
    expand_query_parameters,
    init_linear,
    visible_centers,
)
from recon.models.recon import PretrainingNetwork, PretrainingOutput, Projections, split_patches


class Tower(nn.Module):
    """Standard transformer over one sequence of queries and patch tokens.

    Shapes: patches (B, G, K, 3) with centers (B, G, 3), indices of the visible patches (B, V), None
    for all -> queries, each (B, dim), and tokens (B, V, dim). Unlike in `Encoder`, the blocks are
    standard pre-norm blocks, and queries and tokens attend to each other.
    """

    def __init__(
        self,
        dim: int = 384,
        *,
        depth: int = 12,
        heads: int = 6,
        queries: Sequence[str] = (),
        drop_path: float = 0.1,
        patch_widths: Sequence[int] = (128, 256, 512),
        embed_visible_only: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.dim = dim
        self.position = PositionEmbed(dim)
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, drop_path=p) for p in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.query_tokens = build_query_parameters(queries, dim)
        self.query_positions = build_query_parameters(queries, dim)
        self.apply(init_linear)
        self.embed = PatchEmbed(dim, widths=patch_widths, embed_visible_only=embed_visible_only)

    @property
    def modalities(self) -> list[str]:
        """Names of the queries."""
        return list(self.query_tokens)

    def forward(self, patches: Patches, visible: Int[Tensor, "b v"] | None = None) -> Encoding:
        enabled = self.checkpoint_activations
        x = maybe_checkpoint(self.embed, patches.points, visible, enabled=enabled)
        centers = visible_centers(patches, visible)
        position = self.position(centers)
        names = self.modalities
        if names:
            x = torch.cat([expand_query_parameters(self.query_tokens, x.shape[0]), x], 1)
            position = torch.cat(
                [expand_query_parameters(self.query_positions, x.shape[0]), position], 1
            )
        for block in self.blocks:
            x = maybe_checkpoint(block, x + position, enabled=enabled)
        x = self.norm(x)
        queries = dict(zip(names, x[:, : len(names)].unbind(1), strict=True))
        return Encoding(queries, x[:, len(names) :], centers)


class TwoTowerEncoder(nn.Module):
    """Both towers as one encoder: tokens of the generative, queries of the contrastive tower."""

    def __init__(self, generative: Tower, contrastive: Tower) -> None:
        super().__init__()
        self.generative, self.contrastive = generative, contrastive
        self.dim = generative.dim

    @property
    def modalities(self) -> list[str]:
        """Names of the queries."""
        return self.contrastive.modalities

    def forward(self, patches: Patches) -> Encoding:
        return self.generative(patches)._replace(queries=self.contrastive(patches).queries)


class TwoTowers(PretrainingNetwork):
    """A generative tower on the visible patches and a contrastive tower on all patches [1].

    Shapes: points (B, N, 3), mask (B, G) True where masked -> `PretrainingOutput`. The towers
    share no information.

    [1] Qi et al., arXiv:2302.02318, section 4.5 (the ablation without cross attention).
    """

    def __init__(
        self,
        grouper: PatchGrouper,
        generative: Tower,
        contrastive: Tower,
        decoder: Decoder,
        projections: Projections,
    ) -> None:
        super().__init__(grouper, projections, contrastive.modalities)
        self.generative, self.contrastive = generative, contrastive
        self.decoder = decoder

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.generative(patches)._replace(queries=self.contrastive(patches).queries)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        visible, masked = split_patches(mask, patches)
        return PretrainingOutput(
            predicted=self.decoder(self.generative(patches, visible), masked.centers),
            target=masked.points.flatten(0, 1),
            projected_queries=self.projections(self.contrastive(patches).queries),
        )
