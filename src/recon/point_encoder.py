"""Compute features of point clouds: recon.PointEncoder("last.ckpt").encode(points)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from recon.checkpoints.factory import Network
from recon.checkpoints.loading import load, read_task
from recon.data.transforms import AlignUpAxis, UnitSphere, axis_index
from recon.layers.grouping import Patches, check_clouds
from recon.models.inference import fold_batch_norms
from recon.models.recon import PretrainingNetwork
from recon.models.segmenter import Segmenter
from recon.ops.interpolation import three_interpolate, three_nn
from recon.ops.neighbors import gather_rows
from recon.ops.sampling import farthest_point_sample
from recon.utils.device import resolve_device
from recon.utils.printable import format_count

PointsLike = Any
"""A cloud (N, 3 or more), a batch (B, N, 3 or more), or a list of clouds; numpy or torch."""

PRECISIONS = ("32", "bf16")


class Features(NamedTuple):
    """Features of a batch of B clouds; for a single cloud the first axis is missing."""

    cls: Float[Tensor, "*b d"] | None
    """The three queries; None if the network does not have the query."""
    image: Float[Tensor, "*b d"] | None
    text: Float[Tensor, "*b d"] | None
    image_projected: Float[Tensor, "*b _"] | None
    """The projected queries, in the feature spaces of their teachers; None without a projection."""
    text_projected: Float[Tensor, "*b _"] | None
    tokens: Float[Tensor, "*b g d"]
    """One feature per patch."""
    centers: Float[Tensor, "*b g 3"]
    """Patch centers, in the units and axes of the input."""
    pooled: Float[Tensor, "*b e"]
    """One feature per cloud for linear probes, see `Encoding.pooled`."""


class PatchedCloud(NamedTuple):
    """Patches of one normalized cloud, with the centroid and radius of the input."""

    patches: Patches
    centroid: Tensor
    radius: float


class CloudError(ValueError):
    """A cloud that cannot be encoded: its number in the input, and the reason."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number, self.reason = number, reason

    def __str__(self) -> str:
        return f"cloud {self.number}: {self.reason}"


class PointEncoder:
    """A pretrained encoder for clouds of any size, position and scale.

    `checkpoint` is anything that `load` reads, or a network. Each cloud is rotated so that `up`
    points upwards, centered, scaled to the unit sphere, and reduced to `num_points` points by
    farthest point sampling; smaller clouds keep all their points. The encoder reads coordinates
    only: columns after x y z are ignored. `settings` are arguments of `load` that released files
    need. `precision="bf16"` runs the network in bfloat16, which is faster on processors that
    support it. Features are still float32; their cosine similarity to those of "32" is 0.999.
    `device` is a torch device or its name; `auto` is CUDA if it is available.

    Raises what `load` raises, and ValueError for an unknown axis or precision, and for a device
    that is unavailable.
    """

    def __init__(
        self,
        checkpoint: str | Path | Network,
        *,
        up: str = "y",
        num_points: int = 1024,
        device: str | torch.device = "cpu",
        precision: str = "32",
        **settings: Any,
    ) -> None:
        axis_index(up)
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.device = resolve_device(device)
        if isinstance(checkpoint, str | Path):
            task: Any = read_task(checkpoint)
            network: Network = load(checkpoint, task=task, **settings)
        else:
            network = checkpoint
        if isinstance(network, Segmenter):
            raise ValueError("a segmenter has no features of whole clouds: use `recon.segment`")
        self.network = network.eval().to(self.device)
        self.folded = fold_batch_norms(
            self.network, torch.bfloat16 if precision == "bf16" else None
        )
        self.up, self.num_points, self.precision = up, num_points, precision

    def encode(
        self, points: PointsLike, *, up: str | None = None, batch_size: int = 32
    ) -> Features:
        """Encode clouds; the features are in the order of the clouds.

        `points` is one cloud, a batch, or a list of clouds of different sizes. `up` overrides the
        encoder's axis for this call. Raises ValueError with the number of a cloud that is empty,
        not finite, of another shape, or smaller than the number of patches or points in a patch.
        """
        clouds, is_single = _split_clouds(points)
        rows = [*self.stream(clouds, up=up, batch_size=batch_size)]
        return rows[0] if is_single else _stack_features(rows)

    def stream(
        self, clouds: Iterable[PointsLike], *, up: str | None = None, batch_size: int = 32
    ) -> Iterator[Features]:
        """Encode clouds from an iterable; yield the features of each cloud in order.

        Clouds of different sizes are grouped into patches one by one and encoded `batch_size` at
        a time. Nothing is padded, and at most one batch is in memory. Raises as `encode` does.
        """
        batch: list[PatchedCloud] = []
        for number, cloud in enumerate(clouds):
            batch.append(self._group_cloud(torch.as_tensor(cloud), number, up or self.up))
            if len(batch) == batch_size:
                yield from self._encode_batch(batch, up or self.up)
                batch = []
        if batch:
            yield from self._encode_batch(batch, up or self.up)

    @torch.inference_mode()
    def dense(self, points: PointsLike, *, up: str | None = None) -> Float[Tensor, "n d"]:
        """Return a feature for every point of one cloud, in its order: (N, 3) -> (N, dim).

        Patch tokens are interpolated from the three nearest patch centers.
        """
        clouds, is_single = _split_clouds(points)
        if not is_single:
            raise ValueError(f"dense features are of one cloud (N, 3), got {len(clouds)} clouds")
        features = self.encode(clouds[0], up=up)
        neighbors = three_nn(clouds[0][None, :, :3], features.centers[None])
        return three_interpolate(features.tokens[None], neighbors)[0]

    def _normalize_cloud(self, cloud: Tensor, number: int, up: str) -> tuple[Tensor, Tensor, float]:
        """Check, normalize and subsample a cloud; return it with its centroid and radius."""
        if cloud.ndim != 2 or cloud.shape[1] < 3 or not len(cloud):
            raise CloudError(number, f"expected (N, 3), got {tuple(cloud.shape)}")
        cloud = cloud[:, :3]
        try:
            check_clouds(cloud[None])
        except ValueError as error:
            raise CloudError(number, str(error).removeprefix("cloud 0 ")) from None
        grouper = self.network.grouper
        if len(cloud) < (min_points := max(grouper.groups, grouper.group_size)):
            raise CloudError(
                number,
                f"has {format_count(len(cloud), 'point')}, the network cuts {grouper.groups} "
                f"patches of {grouper.group_size}: give it at least {min_points}",
            )
        centroid = cloud.mean(0)
        centered = (cloud - centroid).float()
        radius = float(centered.norm(dim=1).max())
        upright = AlignUpAxis(up, "y")(UnitSphere()(centered[None]))
        if len(cloud) > self.num_points:
            rows = farthest_point_sample(upright, max(self.num_points, min_points))
            upright = gather_rows(upright, rows)
        return upright[0], centroid, radius

    @torch.inference_mode()
    def _group_cloud(self, cloud: Tensor, number: int, up: str) -> PatchedCloud:
        normalized, centroid, radius = self._normalize_cloud(cloud, number, up)
        patches = self.network.grouper(normalized[None].to(self.device))
        return PatchedCloud(patches, centroid, radius)

    @torch.inference_mode()
    def _encode_batch(self, batch: Sequence[PatchedCloud], up: str) -> list[Features]:
        patches = Patches(
            *(torch.cat(parts) for parts in zip(*(c.patches for c in batch), strict=True))
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            encoding = self.folded.encode_patches(patches)
            projected: dict[str, Tensor] = {}
            if isinstance(self.folded, PretrainingNetwork):
                projected = self.folded.projections(encoding.queries)
        queries = encoding.queries
        features = Features(
            cls=queries.get("cls"),
            image=queries.get("image"),
            text=queries.get("text"),
            image_projected=projected.get("image"),
            text_projected=projected.get("text"),
            tokens=encoding.tokens,
            centers=encoding.centers,
            pooled=encoding.pooled(),
        )
        rows = [_select_row(features, row) for row in range(len(batch))]
        return [
            row._replace(centers=_restore_centers(row.centers, cloud.centroid, cloud.radius, up))
            for row, cloud in zip(rows, batch, strict=True)
        ]


def _select_row(features: Features, row: int) -> Features:
    """Select one cloud of a batch, in float32."""
    items = features._asdict().items()
    fields: Any = {k: None if v is None else v[row].float() for k, v in items}
    return Features(**fields)


def _stack_features(rows: Sequence[Features]) -> Features:
    columns = zip(Features._fields, zip(*rows, strict=True), strict=True)
    fields: Any = {k: None if v[0] is None else torch.stack(v) for k, v in columns}
    return Features(**fields)


def _split_clouds(points: PointsLike) -> tuple[list[Tensor], bool]:
    """Return a list of clouds, and whether the input was a single cloud."""
    if isinstance(points, np.ndarray | Tensor):
        tensor = torch.as_tensor(points)
        return ([tensor], True) if tensor.ndim == 2 else ([*tensor], False)
    if not isinstance(points, Sequence) or not points or isinstance(points, str):
        raise ValueError(
            f"expected a cloud, a batch or a list of clouds, got {type(points).__name__}"
        )
    return [torch.as_tensor(cloud) for cloud in points], False


def _restore_centers(
    centers: Float[Tensor, "g 3"], centroid: Tensor, radius: float, up: str
) -> Float[Tensor, "g 3"]:
    """Map patch centers from the unit sphere back to the coordinates of the input."""
    rotated = AlignUpAxis("y", up)(centers[None])[0]
    return rotated.cpu() * radius + centroid
