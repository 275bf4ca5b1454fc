"""Point-cloud transforms of whole batches on their device, driven by a random generator.

Each transform maps `Clouds` to `Clouds`, or a tensor of points (B, N, 3) to a tensor of points.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import overload

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from recon.data.batch import Clouds
from recon.layers.grouping import check_clouds
from recon.ops.neighbors import gather_rows
from recon.ops.sampling import farthest_point_sample

AXES = "xyz"


class Transform(ABC):
    """Abstract transform of clouds; without a generator it uses the global one of torch."""

    is_random = True
    """Whether random numbers are drawn; a test draws them for each cloud by the cloud's seed."""

    @overload
    def __call__(self, clouds: Clouds, generator: Generator | None = None) -> Clouds: ...
    @overload
    def __call__(self, clouds: Tensor, generator: Generator | None = None) -> Tensor: ...
    def __call__(
        self, clouds: Clouds | Tensor, generator: Generator | None = None
    ) -> Clouds | Tensor:
        if isinstance(clouds, Tensor):
            return self.apply(Clouds(clouds), generator).points
        return self.apply(clouds, generator)

    @abstractmethod
    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        """Transform clouds and the fields of their points."""


def _draw_uniform(
    points: Tensor, width: int, low: float, high: float, generator: Generator | None
) -> Float[Tensor, "b 1 width"]:
    shape = (len(points), 1, width)
    fractions = torch.rand(shape, generator=generator, device=points.device, dtype=points.dtype)
    return low + (high - low) * fractions


def axis_index(name: str) -> int:
    """Return 0, 1 or 2 for x, y or z in any case; raise ValueError for another name."""
    if name not in [*AXES, *AXES.upper()]:
        raise ValueError(f"axis must be x, y or z, got {name!r}")
    return AXES.index(name.lower())


def _select_points(clouds: Clouds, rows: Int[Tensor, "b m"]) -> Clouds:
    """Select points by row, with all their fields."""
    fields = {
        name: field.gather(1, rows) if field.ndim == 2 else gather_rows(field, rows)
        for name, field in clouds._asdict().items()
        if field is not None
    }
    return Clouds(**fields)


def _check_num_points(points: Tensor, num_points: int) -> None:
    if points.shape[1] < num_points:
        raise ValueError(f"cannot keep {num_points} of {points.shape[1]} points: lower num_points")


class Compose(Transform):
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        for transform in self.transforms:
            clouds = transform(clouds, generator)
        return clouds


class RandomPointSample(Transform):
    """Draw `num_points` random points without replacement; (B, N, 3) -> (B, num_points, 3)."""

    def __init__(self, num_points: int) -> None:
        self.num_points = num_points

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        points = clouds.points
        _check_num_points(points, self.num_points)
        scores = torch.rand(points.shape[:2], generator=generator, device=points.device)
        return _select_points(clouds, scores.topk(self.num_points, dim=1, sorted=False).indices)


class FarthestPointSample(Transform):
    """Select `num_points` points by farthest point sampling, in that order, deterministically."""

    is_random = False

    def __init__(self, num_points: int) -> None:
        self.num_points = num_points

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        check_clouds(clouds.points)
        _check_num_points(clouds.points, self.num_points)
        return _select_points(clouds, farthest_point_sample(clouds.points, self.num_points))


class PointDropout(Transform):
    """Replace a random share of points, up to `max_dropout_ratio`, by a cloud's first point [1].

    [1] Qi et al., arXiv:1706.02413 (PointNet++, random input dropout, as released).
    """

    def __init__(self, max_dropout_ratio: float = 0.875) -> None:
        if not 0 <= max_dropout_ratio < 1:
            raise ValueError(f"max_dropout_ratio must be in [0, 1), got {max_dropout_ratio}")
        self.max_dropout_ratio = max_dropout_ratio

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        points = clouds.points
        ratio = _draw_uniform(points, 1, 0.0, self.max_dropout_ratio, generator)[..., 0]
        scores = torch.rand(points.shape[:2], generator=generator, device=points.device)
        rows = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
        return _select_points(clouds, rows.where(scores > ratio, torch.zeros_like(rows)))


class UnitSphere(Transform):
    """Center each cloud at its mean and scale it so that its farthest point has distance 1."""

    is_random = False

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        points = clouds.points
        check_clouds(points)
        points = points if points.is_floating_point() else points.float()
        centered = points - points.mean(1, keepdim=True)
        radius = centered.norm(dim=-1).amax(1).clamp_min(torch.finfo(points.dtype).tiny)
        return clouds._replace(points=centered / radius[:, None, None])


class AlignUpAxis(Transform):
    """Rotate clouds so that their up axis `source` becomes `target`.

    With `mirror`, swap the two axes instead, a reflection that some of the literature uses.
    """

    is_random = False

    def __init__(self, source: str, target: str, *, mirror: bool = False) -> None:
        self.source, self.target, self.mirror = axis_index(source), axis_index(target), mirror

    def _align(self, vectors: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        aligned = vectors.clone()
        aligned[..., self.target] = vectors[..., self.source]
        swapped = vectors[..., self.target]
        aligned[..., self.source] = swapped if self.mirror else -swapped
        return aligned

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        if self.source == self.target:
            return clouds
        normals = None if clouds.normals is None else self._align(clouds.normals)
        return clouds._replace(points=self._align(clouds.points), normals=normals)


class AddHeight(Transform):
    """Add the height of each point above the lowest point, along `axis`."""

    is_random = False

    def __init__(self, axis: str = "y") -> None:
        self.axis = axis_index(axis)

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        coordinate = clouds.points[..., self.axis, None]
        return clouds._replace(height=coordinate - coordinate.amin(1, keepdim=True))


class RandomRotation(Transform):
    """Rotate each cloud about one axis by a random angle in [-degrees, degrees]."""

    def __init__(self, axis: str = "y", degrees: float = 180.0) -> None:
        self.axis, self.radians = axis_index(axis), degrees * torch.pi / 180

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        angle = _draw_uniform(clouds.points, 1, -self.radians, self.radians, generator)[..., 0]
        normals = None if clouds.normals is None else self._rotate(clouds.normals, angle)
        return clouds._replace(points=self._rotate(clouds.points, angle), normals=normals)

    def _rotate(
        self, vectors: Float[Tensor, "b n 3"], angle: Float[Tensor, "b 1"]
    ) -> Float[Tensor, "b n 3"]:
        first, second = (self.axis + 1) % 3, (self.axis + 2) % 3
        cos, sin = angle.cos(), angle.sin()
        rotated = vectors.clone()
        rotated[..., first] = cos * vectors[..., first] - sin * vectors[..., second]
        rotated[..., second] = sin * vectors[..., first] + cos * vectors[..., second]
        return rotated


class RandomSO3Rotation(Transform):
    """Rotate each cloud by a uniformly random rotation in SO(3) [1].

    [1] Shoemake, Uniform random rotations, Graphics Gems III, 1992: a uniform unit quaternion.
    """

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        points = clouds.points
        quaternion = torch.randn(
            len(points), 4, generator=generator, device=points.device, dtype=points.dtype
        )
        w, *xyz = (quaternion / quaternion.norm(dim=1, keepdim=True)).unbind(1)
        v = torch.stack(xyz, 1)
        eye = torch.eye(3, device=points.device, dtype=points.dtype)
        cross = torch.linalg.cross(v[:, None], eye.expand(len(points), 3, 3))
        outer = v[:, :, None] * v[:, None]
        square = (w * w - (v * v).sum(1))[:, None, None]
        # Rows of `cross` are v x e_i, so this is the transpose of R, as needed for points in rows.
        rotation = square * eye + 2 * outer + 2 * w[:, None, None] * cross
        normals = None if clouds.normals is None else clouds.normals @ rotation
        return clouds._replace(points=points @ rotation, normals=normals)


class RandomScale(Transform):
    """Scale each cloud by a random factor in [low, high], one per axis if `anisotropic`."""

    def __init__(
        self, low: float = 2 / 3, high: float = 3 / 2, *, anisotropic: bool = False
    ) -> None:
        self.low, self.high, self.width = low, high, 3 if anisotropic else 1

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        factor = _draw_uniform(clouds.points, self.width, self.low, self.high, generator)
        normals = clouds.normals
        if normals is not None and self.width == 3:  # keep normals orthogonal to the surface
            normals = torch.nn.functional.normalize(normals / factor, dim=-1)
        return clouds._replace(points=clouds.points * factor, normals=normals)


class RandomTranslate(Transform):
    """Shift each cloud along each axis by a random offset in [-distance, distance]."""

    def __init__(self, distance: float = 0.2) -> None:
        self.distance = distance

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        shift = _draw_uniform(clouds.points, 3, -self.distance, self.distance, generator)
        return clouds._replace(points=clouds.points + shift)


class RandomJitter(Transform):
    """Add Gaussian noise of standard deviation `sigma` to each point, clipped to [-clip, clip]."""

    def __init__(self, sigma: float = 0.01, clip: float = 0.05) -> None:
        self.sigma, self.clip = sigma, clip

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        points = clouds.points
        noise = torch.randn(
            points.shape, generator=generator, device=points.device, dtype=points.dtype
        )
        jittered = points + (self.sigma * noise).clamp(-self.clip, self.clip)
        return clouds._replace(points=jittered)


class RandomColorDrop(Transform):
    """Replace all colors of a cloud by one gray with probability `p` [1].

    [1] Liu et al., arXiv:2305.10764 (OpenShape, as released: gray 0.4).
    """

    def __init__(self, p: float = 0.5, gray: float = 0.4) -> None:
        self.p, self.gray = p, gray

    def apply(self, clouds: Clouds, generator: Generator | None) -> Clouds:
        if clouds.colors is None:
            return clouds
        dropped = _draw_uniform(clouds.points, 1, 0.0, 1.0, generator) < self.p
        return clouds._replace(colors=clouds.colors.masked_fill(dropped, self.gray))
