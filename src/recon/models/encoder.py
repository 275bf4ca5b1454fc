"""The student that every task shares: patches to tokens, and queries that attend to them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recon.layers.blocks import LocalBlock, QueryBlock
from recon.layers.grouping import Patches
from recon.layers.patch_embed import PatchEmbed
from recon.layers.position import PositionEmbed

MODALITIES = ("cls", "image", "text")
INIT_STD = 0.02


class Encoding(NamedTuple):
    """What an encoder knows of a batch of clouds."""

    queries: dict[str, Float[Tensor, "b d"]]
    tokens: Float[Tensor, "b v d"]
    """One token a visible patch."""
    centers: Float[Tensor, "b v 3"]
    """Centres of the visible patches."""

    def pooled(self) -> Float[Tensor, "b e"]:
        """Return the feature for linear probes, (B, 2 dim) [1].

        Maximum over the queries, and maximum plus mean over the patch tokens.

        [1] Qi et al., arXiv:2302.02318, section 4.1 (as in the released linear-SVM evaluation).
        """
        patch = self.tokens.amax(1) + self.tokens.mean(1)
        if not self.queries:
            return patch
        return torch.cat([torch.stack([*self.queries.values()]).amax(0), patch], -1)


def init_linear(module: nn.Module) -> None:
    """Start linear layers at a truncated normal of deviation 0.02, biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def learned_vectors(names: Sequence[str], dim: int) -> nn.ParameterDict:
    """Return one learned vector (1, 1, dim) a name, started at a truncated normal."""
    start = nn.init.trunc_normal_
    return nn.ParameterDict(
        {name: start(nn.Parameter(torch.empty(1, 1, dim)), std=INIT_STD) for name in names}
    )


def stack_vectors(vectors: nn.ParameterDict, batch: int) -> Float[Tensor, "b q d"]:
    """Stack learned vectors in their order, once for each element of a batch."""
    return torch.cat([*vectors.values()], 1).expand(batch, -1, -1)


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Return stochastic depth rates rising linearly from 0 over the blocks."""
    return np.linspace(0, highest, depth).tolist()


def check_mask(mask: Tensor) -> None:
    """Raise ValueError where a mask is not boolean: numbers would index, not choose."""
    if mask.dtype != torch.bool:
        raise ValueError(f"a mask must be of bool, True where hidden, not of {mask.dtype}")


def select(values: Float[Tensor, "b g c"], chosen: Bool[Tensor, "_ _"]) -> Float[Tensor, "b v c"]:
    """Keep the chosen patches of each cloud, in their order.

    Shapes: (B, G, C), chosen (B, G) -> (B, V, C). Raises ValueError where the shapes do not fit,
    or where not every cloud keeps the same number, at least one.
    """
    if chosen.shape != values.shape[:2]:
        raise ValueError(
            f"a mask of shape {tuple(chosen.shape)} does not fit {values.shape[1]} patches "
            f"of {values.shape[0]} clouds"
        )
    counts = chosen.sum(1)
    if (counts != counts[0]).any() or counts[0] == 0:
        raise ValueError(
            "a mask must hide the same number of patches of every cloud, neither all nor none: "
            f"it parts {values.shape[1]} patches into {counts.tolist()} and the rest"
        )
    return values[chosen].view(len(values), -1, values.shape[-1])


def visible(
    tokens: Float[Tensor, "b g d"], centers: Float[Tensor, "b g 3"], mask: Tensor | None
) -> tuple[Float[Tensor, "b v d"], Float[Tensor, "b v 3"]]:
    """Keep the tokens and centres that a mask (B, G), True where hidden, leaves; None keeps all."""
    if mask is None:
        return tokens, centers
    check_mask(mask)
    return select(tokens, ~mask), select(centers, ~mask)


class QueryStream(nn.Module):
    """One learned query a modality, each attending to the tokens of every block.

    Shapes: contexts, one (B, N, dim) a block -> queries (B, Q, dim). The learned positions are
    added again before every block.
    """

    def __init__(
        self, names: Sequence[str], dim: int, *, heads: int, drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.tokens = learned_vectors(names, dim)
        self.positions = learned_vectors(names, dim)
        self.blocks = nn.ModuleList(QueryBlock(dim, heads=heads, drop_path=p) for p in drop_path)

    def forward(self, contexts: Sequence[Float[Tensor, "b n d"]]) -> Float[Tensor, "b q d"]:
        batch = len(contexts[0])
        queries = stack_vectors(self.tokens, batch)
        position = stack_vectors(self.positions, batch)
        for block, context in zip(self.blocks, contexts, strict=True):
            queries = block(queries + position, context)
        return queries


class Levels(NamedTuple):
    """What the blocks of an encoder hand on, before and after the shared norm."""

    tokens: list[Float[Tensor, "b v d"]]
    """Normalised patch tokens after each of the asked blocks."""
    queries: Float[Tensor, "b q d"] | None
    """The queries after the last block, not normalised."""
    centers: Float[Tensor, "b v 3"]


class Encoder(nn.Module):
    """Patch tokens through ReCon blocks, with one query for each modality beside them [1].

    Shapes: patches (B, G, K, 3) with centers (B, G, 3), mask (B, G) -> queries, each (B, dim), and
    tokens (B, V, dim) of the visible patches. With `stop_gradient` what the queries learn does
    not reach the tokens: the generative stream guides the contrastive one, not the reverse.
    `queries` may be empty: then this is the encoder of a generative student alone.

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
    ) -> None:
        super().__init__()
        self.dim, rates = dim, drop_path_rates(drop_path, depth)
        self.position = PositionEmbed(dim)
        self.blocks = nn.ModuleList(LocalBlock(dim, heads=heads, drop_path=p) for p in rates)
        self.norm = nn.LayerNorm(dim)
        self.stop_gradient = stop_gradient
        self.queries = QueryStream(queries, dim, heads=heads, drop_path=rates) if queries else None
        self.apply(init_linear)
        self.embed = PatchEmbed(dim, widths=patch_widths)

    @property
    def modalities(self) -> list[str]:
        """Names of the queries."""
        return list(self.queries.tokens) if self.queries is not None else []

    def levels(
        self,
        patches: Patches,
        blocks: Sequence[int],
        mask: Bool[Tensor, "b g"] | None = None,
    ) -> Levels:
        """Return the tokens after some of the blocks, numbered from 0, and the queries."""
        # All patches are embedded, hidden ones too: the released batch statistics see them.
        tokens, centers = visible(self.embed(patches.points), patches.centers, mask)
        position = self.position(centers)
        contexts, kept = [], {}
        for number, block in enumerate(self.blocks):
            tokens, context = block(tokens + position)
            contexts.append(context.detach() if self.stop_gradient else context)
            if number in blocks:
                kept[number] = self.norm(tokens)
        queries = None if self.queries is None else self.queries(contexts)
        return Levels([kept[number] for number in blocks], queries, centers)

    def forward(self, patches: Patches, mask: Bool[Tensor, "b g"] | None = None) -> Encoding:
        levels = self.levels(patches, [len(self.blocks) - 1], mask)
        queries: dict[str, Tensor] = {}
        if levels.queries is not None:
            encoded = self.norm(levels.queries).unbind(1)
            queries = dict(zip(self.modalities, encoded, strict=True))
        return Encoding(queries, levels.tokens[0], levels.centers)
