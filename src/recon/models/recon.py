"""The networks of pretraining: clouds and a mask in, what the losses need out."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import NamedTuple

from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from recon.layers.grouping import Patches, PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder, Encoding
from recon.ops.masking import split_by_mask
from recon.ops.neighbors import gather_rows


class PretrainingOutput(NamedTuple):
    """What the pretraining losses need; nothing is reduced here."""

    predicted: Float[Tensor, "h k 3"]
    """Rebuilt points of all hidden patches, relative to their centres."""
    target: Float[Tensor, "h k 3"]
    """True points of all hidden patches, relative to their centres."""
    projected_queries: dict[str, Float[Tensor, "b _"]]
    """Each modality's query, projected to its teacher's width."""


def init_projection(module: nn.Module) -> None:
    """Start linear layers as the released projections do: weights of mean 0.02, deviation 0.01."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean=0.02, std=0.01)
        nn.init.zeros_(module.bias)


class Projections(nn.ModuleDict):
    """Map each modality's query to its teacher's width; those without a projection are left out.

    `dims` gives the width a modality. The `cls` query, which has no teacher, goes through the head
    of the self-contrast: Linear-BN-ReLU-Linear-BN.
    """

    def __init__(self, dim: int, dims: Mapping[str, int]) -> None:
        super().__init__(
            {
                name: self._self_contrast(dim, out) if name == "cls" else nn.Linear(dim, out)
                for name, out in dims.items()
            }
        )
        self.dims = dict(dims)
        self.apply(init_projection)

    @staticmethod
    def _self_contrast(dim: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(dim, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Linear(out, out),
            nn.BatchNorm1d(out),
        )  # fmt: skip

    def forward(self, queries: dict[str, Float[Tensor, "b d"]]) -> dict[str, Float[Tensor, "b _"]]:
        return {name: project(queries[name]) for name, project in self.items()}


class PretrainingNetwork(nn.Module, ABC):
    """A student of some composition: clouds and a mask in, what the losses need out.

    Clouds may be of any numeric type. Raises ValueError for a projection of a query that the
    network does not have.
    """

    def __init__(
        self, grouper: PatchGrouper, projections: Projections, queries: Collection[str]
    ) -> None:
        super().__init__()
        if unknown := projections.dims.keys() - set(queries):
            raise ValueError(
                f"projections of {sorted(unknown)}, but the network has the queries {list(queries)}"
            )
        self.grouper, self.projections = grouper, projections

    @abstractmethod
    def encode_patches(self, patches: Patches) -> Encoding:
        """Encode patches, nothing hidden."""

    @abstractmethod
    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        """Rebuild the hidden patches from the visible ones and project the queries."""

    def encode(self, points: Num[Tensor, "b n 3"]) -> Encoding:
        """Encode whole clouds, nothing hidden; (B, N, 3) -> `Encoding`."""
        return self.encode_patches(self.group_points(points))

    def group_points(self, points: Num[Tensor, "b n 3"]) -> Patches:
        """Cut clouds into patches, in the precision of the weights."""
        return self.grouper(points.to(next(self.parameters()).dtype))

    def forward(
        self, points: Num[Tensor, "b n 3"], mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        return self.forward_patches(self.group_points(points), mask)


class MaskSplit(NamedTuple):
    """What a mask makes of patches: the numbers of the visible ones, and the hidden ones."""

    visible: Int[Tensor, "b v"]
    masked: Patches


def split_patches(mask: Bool[Tensor, "b g"] | None, patches: Patches) -> MaskSplit:
    """Part patches by their mask; raise ValueError where there is none, to rebuild by."""
    if mask is None:
        raise ValueError("a generative student needs a mask: it rebuilds what is hidden")
    visible, hidden = split_by_mask(mask, patches.centers.shape[1])
    points = gather_rows(patches.points.flatten(2), hidden).unflatten(2, (-1, 3))
    return MaskSplit(visible, Patches(points, gather_rows(patches.centers, hidden)))


class ReCon(PretrainingNetwork):
    """Generative and contrastive students on one encoder [1].

    Shapes: points (B, N, 3), mask (B, G) True where hidden -> `Reconstruction`. With an encoder
    that has no queries, and no projections, this is the generative student alone.

    [1] Qi et al., arXiv:2302.02318, figure 2.
    """

    def __init__(
        self,
        grouper: PatchGrouper,
        encoder: Encoder,
        decoder: Decoder,
        projections: Projections,
    ) -> None:
        super().__init__(grouper, projections, encoder.modalities)
        self.encoder, self.decoder = encoder, decoder

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.encoder(patches)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        visible, hidden = split_patches(mask, patches)
        encoding = self.encoder(patches, visible)
        return PretrainingOutput(
            predicted=self.decoder(encoding, hidden.centers),
            target=hidden.points.flatten(0, 1),
            projected_queries=self.projections(encoding.queries),
        )


class ContrastiveNetwork(PretrainingNetwork):
    """The contrastive students alone: queries on an encoder, nothing rebuilt.

    Shapes: points (B, N, 3), mask (B, G) True where hidden, None to see all -> `Reconstruction`
    without points.
    """

    def __init__(self, grouper: PatchGrouper, encoder: Encoder, projections: Projections) -> None:
        super().__init__(grouper, projections, encoder.modalities)
        self.encoder = encoder

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.encoder(patches)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        nothing = patches.points.flatten(0, 1)[:0]
        visible = None if mask is None else split_by_mask(mask, patches.centers.shape[1]).visible
        queries = self.projections(self.encoder(patches, visible).queries)
        return PretrainingOutput(nothing, nothing, queries)
