"""Features of your own clouds: recon.PointEncoder("last.ckpt").encode(points)."""

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

PointsLike = Any
"""A cloud (N, 3 or more), a batch (B, N, 3 or more), or a list of clouds; numpy or torch."""

PRECISIONS = ("32", "bf16")


class Features(NamedTuple):
    """What an encoder knows of B clouds, or of one, then without the first axis."""

    cls: Float[Tensor, "*b d"] | None
    """The queries; None where the weights have none."""
    image: Float[Tensor, "*b d"] | None
    text: Float[Tensor, "*b d"] | None
    image_projected: Float[Tensor, "*b _"] | None
    """The queries in their teachers' spaces; None where the weights have no projection."""
    text_projected: Float[Tensor, "*b _"] | None
    tokens: Float[Tensor, "*b g d"]
    """One feature a patch."""
    centers: Float[Tensor, "*b g 3"]
    """Middles of the patches, in the units and axes of the input."""
    pooled: Float[Tensor, "*b e"]
    """For linear probes, see `Encoding.pooled`."""


class PatchedCloud(NamedTuple):
    """Patches of one cloud, and what was its middle and its radius."""

    patches: Patches
    centroid: Tensor
    radius: float


class PointEncoder:
    """A pretrained encoder for clouds of any size, place and scale.

    `source` is a file that `load` reads, or a network. Each cloud is turned so that `up` points
    upwards, centred, scaled to the unit sphere and reduced to `points` of its points, each the
    farthest from those before; smaller clouds keep all of theirs. Columns after x y z are left out:
    the encoder reads coordinates. `num_heads` and so on are for released files, see `load`.
    `precision="bf16"` computes the network in bfloat16: features are float32 all the same, and
    agree with those of "32" to a cosine of 0.999; it pays on processors that have bfloat16.

    Raises what `load` raises, and ValueError for an unknown axis or precision.
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
        if isinstance(checkpoint, str | Path):
            task: Any = read_task(checkpoint)
            network: Network = load(checkpoint, task=task, **settings)
        else:
            network = checkpoint
        if isinstance(network, Segmenter):
            raise ValueError("a segmenter has no features of whole clouds: use `recon.segment`")
        self.network = network.eval().to(device)
        self.folded = fold_batch_norms(
            self.network, torch.bfloat16 if precision == "bf16" else None
        )
        self.up, self.points, self.device = up, num_points, torch.device(device)
        self.precision = precision

    def encode(
        self, points: PointsLike, *, up: str | None = None, batch_size: int = 32
    ) -> Features:
        """Encode clouds, in their order.

        `points` is one cloud, a batch, or a list of clouds of different sizes; `up` is for this
        call alone. Raises ValueError that numbers a cloud which is empty, not finite, of another
        shape, or has fewer points than the network has patches or points in a patch.
        """
        clouds, single = _clouds(points)
        found = [*self.stream(clouds, up=up, batch_size=batch_size)]
        return found[0] if single else _stacked(found)

    def stream(
        self, clouds: Iterable[PointsLike], *, up: str | None = None, batch_size: int = 32
    ) -> Iterator[Features]:
        """Encode clouds one after the other, of any number and sizes: features of each, in order.

        Clouds are cut into patches one by one and encoded `batch_size` at a time: nothing is
        padded, and no more than a batch is held. Raises as `encode` does.
        """
        waiting: list[PatchedCloud] = []
        for number, cloud in enumerate(clouds):
            waiting.append(self._cut(torch.as_tensor(cloud), number, up or self.up))
            if len(waiting) == batch_size:
                yield from self._encoded(waiting, up or self.up)
                waiting = []
        if waiting:
            yield from self._encoded(waiting, up or self.up)

    @torch.inference_mode()
    def dense(self, points: PointsLike, *, up: str | None = None) -> Float[Tensor, "n d"]:
        """Return a feature for every point of one cloud: (N, 3) -> (N, dim), in its order.

        The patch tokens, carried to the points by three-nearest interpolation.
        """
        clouds, single = _clouds(points)
        if not single:
            raise ValueError(f"dense features are of one cloud (N, 3), got {len(clouds)} clouds")
        found = self.encode(clouds[0], up=up)
        near = three_nn(clouds[0][None, :, :3], found.centers[None])
        return three_interpolate(found.tokens[None], near)[0]

    def _reduced(self, cloud: Tensor, number: int, up: str) -> tuple[Tensor, Tensor, float]:
        """Return a cloud as the network wants it, and what was its middle and its radius."""
        if cloud.ndim != 2 or cloud.shape[1] < 3 or not len(cloud):
            raise ValueError(f"cloud {number}: expected (N, 3), got {tuple(cloud.shape)}")
        cloud = cloud[:, :3]
        try:
            check_clouds(cloud[None])
        except ValueError as error:
            raise ValueError(f"cloud {number}: {str(error).split('holds ', 1)[-1]}") from None
        grouper = self.network.grouper
        if len(cloud) < (need := max(grouper.groups, grouper.group_size)):
            raise ValueError(
                f"cloud {number}: has {len(cloud)} points, the network cuts {grouper.groups} "
                f"patches of {grouper.group_size}: give it at least {need}"
            )
        middle = cloud.mean(0)
        centered = (cloud - middle).float()
        radius = float(centered.norm(dim=1).max())
        upright = AlignUpAxis(up, "y")(UnitSphere()(centered[None]))
        if len(cloud) > self.points:
            picked = farthest_point_sample(upright, max(self.points, need))
            upright = gather_rows(upright, picked)
        return upright[0], middle, radius

    @torch.inference_mode()
    def _cut(self, cloud: Tensor, number: int, up: str) -> "PatchedCloud":
        reduced, middle, radius = self._reduced(cloud, number, up)
        return PatchedCloud(self.network.grouper(reduced[None].to(self.device)), middle, radius)

    @torch.inference_mode()
    def _encoded(self, cuts: Sequence["PatchedCloud"], up: str) -> list[Features]:
        patches = Patches(
            *(torch.cat(part) for part in zip(*(c.patches for c in cuts), strict=True))
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
        rows = [_row(features, place) for place in range(len(cuts))]
        return [
            row._replace(centers=_back(row.centers, cut.centroid, cut.radius, up))
            for row, cut in zip(rows, cuts, strict=True)
        ]


def _row(features: Features, place: int) -> Features:
    fields = features._asdict().items()
    kept: Any = {k: None if v is None else v[place].float() for k, v in fields}
    return Features(**kept)


def _stacked(rows: Sequence[Features]) -> Features:
    fields = zip(Features._fields, zip(*rows, strict=True), strict=True)
    kept: Any = {k: None if v[0] is None else torch.stack(v) for k, v in fields}
    return Features(**kept)


def _clouds(points: PointsLike) -> tuple[list[Tensor], bool]:
    """Return a list of clouds, and whether there was a single one."""
    if isinstance(points, np.ndarray | Tensor):
        held = torch.as_tensor(points)
        return ([held], True) if held.ndim == 2 else ([*held], False)
    if not isinstance(points, Sequence) or not points or isinstance(points, str):
        raise ValueError(f"expected a cloud, a batch or clouds, got {type(points).__name__}")
    return [torch.as_tensor(cloud) for cloud in points], False


def _back(
    centers: Float[Tensor, "g 3"], middle: Tensor, radius: float, up: str
) -> Float[Tensor, "g 3"]:
    """Return centres to where the input lay."""
    turned = AlignUpAxis("y", up)(centers[None])[0]
    return turned.cpu() * radius + middle
