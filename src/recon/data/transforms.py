"""Augmentations of whole batches, on their device; each draws from the generator it is given."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from recon.layers.grouping import check_clouds
from recon.ops.neighbors import gather
from recon.ops.sampling import farthest_point_sample

AXES = "xyz"


@runtime_checkable
class Transform(Protocol):
    """Clouds (B, N, 3) in, clouds (B, M, 3) out."""

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b m 3"]: ...


def _uniform(
    points: Tensor, width: int, low: float, high: float, generator: Generator
) -> Float[Tensor, "b 1 width"]:
    shape = (len(points), 1, width)
    drawn = torch.rand(shape, generator=generator, device=points.device, dtype=points.dtype)
    return low + (high - low) * drawn


def _enough(points: Tensor, count: int) -> None:
    if points.shape[1] < count:
        raise ValueError(
            f"cannot keep {count} of {points.shape[1]} points: lower `count` (the option `points`)"
        )


class Compose:
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b m 3"]:
        for transform in self.transforms:
            points = transform(points, generator)
        return points


class RandomSubset:
    """Keep `count` points at random without repetition; (B, N, 3) -> (B, count, 3)."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b count 3"]:
        _enough(points, self.count)
        scores = torch.rand(points.shape[:2], generator=generator, device=points.device)
        return gather(points, scores.topk(self.count, dim=1, sorted=False).indices)


class FarthestSubset:
    """Keep `count` points by farthest point sampling, in that order; nothing random."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator | None = None
    ) -> Float[Tensor, "b count 3"]:
        check_clouds(points)
        _enough(points, self.count)
        return gather(points, farthest_point_sample(points, self.count))


class UnitSphere:
    """Centre each cloud at its mean and scale its farthest point to distance 1."""

    def __call__(
        self, points: Num[Tensor, "b n 3"], generator: Generator | None = None
    ) -> Float[Tensor, "b n 3"]:
        check_clouds(points)
        points = points if points.is_floating_point() else points.float()
        centered = points - points.mean(1, keepdim=True)
        radius = centered.norm(dim=-1).amax(1).clamp_min(torch.finfo(points.dtype).tiny)
        return centered / radius[:, None, None]


class RandomRotation:
    """Rotate each cloud about one axis by an angle in [-degrees, degrees]."""

    def __init__(self, axis: str = "y", degrees: float = 180.0) -> None:
        if axis not in AXES:
            raise ValueError(f"axis must be x, y or z, got {axis!r}")
        self.axis, self.radians = AXES.index(axis), degrees * torch.pi / 180

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b n 3"]:
        angle = _uniform(points, 1, -self.radians, self.radians, generator)[..., 0]
        first, second = (self.axis + 1) % 3, (self.axis + 2) % 3
        cos, sin = angle.cos(), angle.sin()
        rotated = points.clone()
        rotated[..., first] = cos * points[..., first] - sin * points[..., second]
        rotated[..., second] = sin * points[..., first] + cos * points[..., second]
        return rotated


class RandomScale:
    """Scale each cloud by a factor in [low, high], one an axis where `anisotropic`."""

    def __init__(
        self, low: float = 2 / 3, high: float = 3 / 2, *, anisotropic: bool = False
    ) -> None:
        self.low, self.high, self.width = low, high, 3 if anisotropic else 1

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b n 3"]:
        return points * _uniform(points, self.width, self.low, self.high, generator)


class RandomTranslate:
    """Shift each cloud along each axis by up to `distance` units."""

    def __init__(self, distance: float = 0.2) -> None:
        self.distance = distance

    def __call__(
        self, points: Float[Tensor, "b n 3"], generator: Generator
    ) -> Float[Tensor, "b n 3"]:
        return points + _uniform(points, 3, -self.distance, self.distance, generator)
