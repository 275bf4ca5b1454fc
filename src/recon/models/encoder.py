"""The ReCon encoder that all tasks share: patch tokens, and queries that attend to them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recon.layers.activation_checkpointing import maybe_checkpoint
from recon.layers.blocks import LocalBlock, QueryBlock
from recon.layers.grouping import Patches
from recon.layers.patch_embed import PatchEmbed
from recon.layers.position import PositionEmbed
from recon.ops.neighbors import gather_rows

MODALITIES = ("cls", "image", "text")
INIT_STD = 0.02


class Encoding(NamedTuple):
    """Queries and patch tokens of a batch of clouds."""

    queries: dict[str, Float[Tensor, "b d"]]
    tokens: Float[Tensor, "b v d"]
    """One token per visible patch."""
    centers: Float[Tensor, "b v 3"]
    """Centers of the visible patches."""

    def pooled(self) -> Float[Tensor, "b e"]:
        """Return the feature for linear probes, (B, 2 dim), or (B, dim) without queries [1].

        It is the maximum over the queries, and the sum of maximum and mean over the patch tokens.

        [1] Qi et al., arXiv:2302.02318, section 4.1 (as in the released linear-SVM evaluation).
        """
        patch = self.tokens.amax(1) + self.tokens.mean(1)
        if not self.queries:
            return patch
        return torch.cat([torch.stack([*self.queries.values()]).amax(0), patch], -1)


def init_linear(module: nn.Module) -> None:
    """Initialize linear layers from a truncated normal of standard deviation 0.02, biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_query_parameters(names: Sequence[str], dim: int) -> nn.ParameterDict:
    """Return one learned vector (1, 1, dim) per name, initialized from a truncated normal."""
    init = nn.init.trunc_normal_
    return nn.ParameterDict(
        {name: init(nn.Parameter(torch.empty(1, 1, dim)), std=INIT_STD) for name in names}
    )


def expand_query_parameters(
    vectors: nn.ParameterDict, batch: int | torch.SymInt
) -> Float[Tensor, "b q d"]:
    """Stack the learned vectors in order and expand them over the batch; -> (B, Q, dim)."""
    return torch.cat([*vectors.values()], 1).expand(batch, -1, -1)


def drop_path_rates(max_rate: float, depth: int) -> list[float]:
    """Return stochastic depth rates that rise linearly from 0 to `max_rate` over the blocks."""
    return np.linspace(0, max_rate, depth).tolist()


def visible_centers(patches: Patches, visible: Int[Tensor, "b v"] | None) -> Float[Tensor, "b v 3"]:
    """Return the centers of the visible patches, or of all patches with None."""
    return patches.centers if visible is None else gather_rows(patches.centers, visible)


class QueryStream(nn.Module):
    """One learned query per modality, which attends to the tokens of every block.

    Shapes: contexts, one (B, N, dim) per block -> queries (B, Q, dim). The learned positions are
    added before every block.
    """

    def __init__(
        self, names: Sequence[str], dim: int, *, heads: int, drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.tokens = build_query_parameters(names, dim)
        self.positions = build_query_parameters(names, dim)
        self.blocks = nn.ModuleList(QueryBlock(dim, heads=heads, drop_path=p) for p in drop_path)

    def forward(self, contexts: Sequence[Float[Tensor, "b n d"]]) -> Float[Tensor, "b q d"]:
        batch = contexts[0].shape[0]
        queries = expand_query_parameters(self.tokens, batch)
        position = expand_query_parameters(self.positions, batch)
        for block, context in zip(self.blocks, contexts, strict=True):
            queries = block(queries + position, context)
        return queries


class Intermediates(NamedTuple):
    """Outputs of selected encoder blocks."""

    tokens: list[Float[Tensor, "b v d"]]
    """Normalized patch tokens after each selected block."""
    queries: Float[Tensor, "b q d"] | None
    """Queries after the last block, not normalized."""
    centers: Float[Tensor, "b v 3"]


class Encoder(nn.Module):
    """Encode patches by ReCon blocks, with one query per modality [1].

    Shapes: patches (B, G, K, 3) with centers (B, G, 3), indices of the visible patches (B, V), None
    for all -> queries, each (B, dim), and tokens (B, V, dim) of the visible patches. With
    `stop_gradient`, no gradient flows from the queries to the tokens: the generative stream guides
    the contrastive one, not the reverse. Without `queries`, this is the encoder of the generative
    student alone. For `embed_visible_only` see `PatchEmbed`, for `checkpoint_activations` see
    `maybe_checkpoint`.

    [1] Qi et al., arXiv:2302.02318, section 3.
    """

    def __init__(
        self,
        dim: int = 384,
        *,
        depth: int = 12,
        heads: int = 6,
        queries: Sequence[str] = MODALITIES,
        stop_gradient: bool = True,
        drop_path: float = 0.1,
        patch_widths: Sequence[int] = (128, 256, 512),
        embed_visible_only: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.dim, rates = dim, drop_path_rates(drop_path, depth)
        self.position = PositionEmbed(dim)
        self.blocks = nn.ModuleList(LocalBlock(dim, heads=heads, drop_path=p) for p in rates)
        self.norm = nn.LayerNorm(dim)
        self.stop_gradient = stop_gradient
        self.queries = QueryStream(queries, dim, heads=heads, drop_path=rates) if queries else None
        self.apply(init_linear)
        self.embed = PatchEmbed(dim, widths=patch_widths, embed_visible_only=embed_visible_only)

    @property
    def modalities(self) -> list[str]:
        """Names of the queries."""
        return list(self.queries.tokens) if self.queries is not None else []

    def forward_intermediates(
        self,
        patches: Patches,
        indices: Sequence[int],
        visible: Int[Tensor, "b v"] | None = None,
    ) -> Intermediates:
        """Return the tokens after the blocks of these indices, counted from 0, and the queries."""
        enabled = self.checkpoint_activations
        tokens = maybe_checkpoint(self.embed, patches.points, visible, enabled=enabled)
        centers = visible_centers(patches, visible)
        position = self.position(centers)
        contexts, selected = [], {}
        for index, block in enumerate(self.blocks):
            tokens, context = maybe_checkpoint(block, tokens + position, enabled=enabled)
            contexts.append(context.detach() if self.stop_gradient else context)
            if index in indices:
                selected[index] = self.norm(tokens)
        queries = None if self.queries is None else self.queries(contexts)
        return Intermediates([selected[index] for index in indices], queries, centers)

    def forward(self, patches: Patches, visible: Int[Tensor, "b v"] | None = None) -> Encoding:
        outputs = self.forward_intermediates(patches, [len(self.blocks) - 1], visible)
        queries: dict[str, Tensor] = {}
        if outputs.queries is not None:
            normalized = self.norm(outputs.queries).unbind(1)
            queries = dict(zip(self.modalities, normalized, strict=True))
        return Encoding(queries, outputs.tokens[0], outputs.centers)
