"""Validation and test transforms: random numbers for each cloud by its own seed."""

import pytest
import torch

from recon.data.batch import Clouds, split_clouds
from recon.data.seeded_transforms import RandomStream, seed_generators, transform_each
from recon.data.transforms import (
    AddHeight,
    Compose,
    FarthestPointSample,
    PointDropout,
    RandomColorDrop,
    RandomJitter,
    RandomPointSample,
    RandomRotation,
    RandomScale,
    RandomSO3Rotation,
    RandomTranslate,
    Transform,
    UnitSphere,
)

SEEDS = torch.tensor([5, 11, 5, 2**31 - 1, 0, 17])
RANDOM = [
    RandomPointSample(20), RandomRotation(), RandomSO3Rotation(), RandomScale(anisotropic=True),
    RandomTranslate(), RandomJitter(), PointDropout(), RandomColorDrop(),
]  # fmt: skip


def build_clouds() -> Clouds:
    labels, shape = torch.arange(30).expand(len(SEEDS), 30), (len(SEEDS), 30, 3)
    generator = torch.Generator().manual_seed(0)
    fields = {
        name: torch.rand(shape, generator=generator) for name in ("points", "normals", "colors")
    }
    return Clouds(**fields, point_labels=labels)


def transform_in_batches(transform: object, size: int, stream: int = 0) -> Clouds:
    """Transform the clouds in batches of `size`, and concatenate the results."""
    clouds, parts = build_clouds(), []
    for start in range(0, len(SEEDS), size):
        rows = slice(start, start + size)
        batch = Clouds(*[None if field is None else field[rows] for field in clouds])
        parts.append(transform_each(transform, batch, seed_generators(SEEDS[rows], "cpu", stream)))
    fields = zip(*parts, strict=True)
    return Clouds(*[None if values[0] is None else torch.cat(values) for values in fields])


@pytest.mark.parametrize(
    "transform",
    [*RANDOM, Compose([UnitSphere(), *RANDOM, FarthestPointSample(9), AddHeight()])],
    ids=lambda t: type(t).__name__,
)
def test_the_result_for_a_cloud_does_not_depend_on_its_batch(transform: Transform) -> None:
    before = torch.get_rng_state()
    alone, together = transform_in_batches(transform, 1), transform_in_batches(transform, 6)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in alone._asdict().items():
        other = getattr(together, name)
        assert value is None or torch.allclose(value.float(), other.float(), atol=1e-6)
    assert not torch.equal(alone.points[0], build_clouds().points[0]) or isinstance(
        transform, RandomColorDrop
    )


def test_equal_seeds_draw_equal_numbers_and_streams_draw_others() -> None:
    def translate(stream: int) -> torch.Tensor:
        return (transform_in_batches(RandomTranslate(), 4, stream).points - build_clouds().points)[
            :, 0
        ]

    shifts = translate(RandomStream.TRANSFORM)
    assert torch.allclose(shifts[0], shifts[2], atol=1e-6)
    assert len({tuple(shift.tolist()) for shift in shifts.round(decimals=4)}) == 5
    for stream in (RandomStream.VIEW, RandomStream.VOTE, RandomStream.VOTE + 1):
        assert not torch.allclose(translate(stream), shifts)


def test_a_function_is_applied_to_each_cloud_with_its_generator() -> None:
    def shift(clouds: Clouds, generator: torch.Generator) -> Clouds:
        assert len(clouds.points) == 1
        return clouds._replace(points=clouds.points + torch.rand(1, generator=generator))

    expected = [
        cloud.points + torch.rand(1, generator=generator)
        for cloud, generator in zip(
            split_clouds(build_clouds()), seed_generators(SEEDS, "cpu", 0), strict=True
        )
    ]
    assert torch.equal(transform_in_batches(shift, 3).points, torch.cat(expected))
