"""Pretraining networks: from clouds and a mask to predicted patches and projected queries."""

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
    """Inputs of the pretraining losses, one entry per patch or cloud."""

    predicted: Float[Tensor, "h k 3"]
    """Predicted points of all masked patches, relative to their centers."""
    target: Float[Tensor, "h k 3"]
    """True points of all masked patches, relative to their centers."""
    projected_queries: dict[str, Float[Tensor, "b _"]]
    """The query of each modality, projected to the width of its teacher."""


def init_projection(module: nn.Module) -> None:
    """Initialize linear layers as released: weights of mean 0.02 and standard deviation 0.01."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean=0.02, std=0.01)
        nn.init.zeros_(module.bias)


class Projections(nn.ModuleDict):
    """Project each query to the width of its teacher; queries without a projection are dropped.

    `dims` maps modalities to widths. The `cls` query has no teacher: it goes through the
    self-contrast head, Linear-BN-ReLU-Linear-BN.
    """

    def __init__(self, dim: int, dims: Mapping[str, int]) -> None:
        super().__init__(
            {
                name: self._build_self_contrast_head(dim, out)
                if name == "cls"
                else nn.Linear(dim, out)
                for name, out in dims.items()
            }
        )
        self.dims = dict(dims)
        self.apply(init_projection)

    @staticmethod
    def _build_self_contrast_head(dim: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(dim, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Linear(out, out),
            nn.BatchNorm1d(out),
        )  # fmt: skip

    def forward(self, queries: dict[str, Float[Tensor, "b d"]]) -> dict[str, Float[Tensor, "b _"]]:
        return {name: project(queries[name]) for name, project in self.items()}


class PretrainingNetwork(nn.Module, ABC):
    """Base class of the pretraining networks: clouds and a mask -> `PretrainingOutput`.

    Clouds may have any numeric dtype. Raises ValueError for a projection of a query that the
    network does not have.
    """

    def __init__(
        self, grouper: PatchGrouper, projections: Projections, queries: Collection[str]
    ) -> None:
        super().__init__()
        if unknown := projections.dims.keys() - set(queries):
            raise ValueError(
                f"there are projections of {sorted(unknown)}, but the network has only the queries "
                f"{list(queries)}"
            )
        self.grouper, self.projections = grouper, projections

    @abstractmethod
    def encode_patches(self, patches: Patches) -> Encoding:
        """Encode patches without a mask."""

    @abstractmethod
    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        """Reconstruct the masked patches from the visible ones, and project the queries."""

    def encode(self, points: Num[Tensor, "b n 3"]) -> Encoding:
        """Encode clouds without a mask; (B, N, 3) -> `Encoding`."""
        return self.encode_patches(self.group_points(points))

    def group_points(self, points: Num[Tensor, "b n 3"]) -> Patches:
        """Group clouds into patches, in the dtype of the weights."""
        return self.grouper(points.to(next(self.parameters()).dtype))

    def forward(
        self, points: Num[Tensor, "b n 3"], mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        return self.forward_patches(self.group_points(points), mask)


class MaskSplit(NamedTuple):
    """Indices of the visible patches, and the masked patches themselves."""

    visible: Int[Tensor, "b v"]
    masked: Patches


def split_patches(mask: Bool[Tensor, "b g"] | None, patches: Patches) -> MaskSplit:
    """Split patches by a mask; raise ValueError if the mask is None."""
    if mask is None:
        raise ValueError("a generative student needs a mask: it reconstructs the masked patches")
    visible, masked = split_by_mask(mask, patches.centers.shape[1])
    points = gather_rows(patches.points.flatten(2), masked).unflatten(2, (-1, 3))
    return MaskSplit(visible, Patches(points, gather_rows(patches.centers, masked)))


class ReCon(PretrainingNetwork):
    """Generative and contrastive students on one encoder [1].

    Shapes: points (B, N, 3), mask (B, G) True where masked -> `PretrainingOutput`. With an encoder
    without queries and without projections, this is the generative student alone.

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
        visible, masked = split_patches(mask, patches)
        encoding = self.encoder(patches, visible)
        return PretrainingOutput(
            predicted=self.decoder(encoding, masked.centers),
            target=masked.points.flatten(0, 1),
            projected_queries=self.projections(encoding.queries),
        )


class ContrastiveNetwork(PretrainingNetwork):
    """The contrastive students alone, without reconstruction.

    Shapes: points (B, N, 3), mask (B, G) True where masked, or None -> `PretrainingOutput` without
    points.
    """

    def __init__(self, grouper: PatchGrouper, encoder: Encoder, projections: Projections) -> None:
        super().__init__(grouper, projections, encoder.modalities)
        self.encoder = encoder

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.encoder(patches)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        empty = patches.points.flatten(0, 1)[:0]
        visible = None if mask is None else split_by_mask(mask, patches.centers.shape[1]).visible
        queries = self.projections(self.encoder(patches, visible).queries)
        return PretrainingOutput(empty, empty, queries)
