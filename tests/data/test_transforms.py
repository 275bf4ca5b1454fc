import numpy as np
import pytest
import torch
from torch import Generator
from torch.testing import assert_close

from conftest import assert_near, released_arrays
from recon.data.transforms import (
    Compose,
    FarthestSubset,
    RandomRotation,
    RandomScale,
    RandomSubset,
    RandomTranslate,
    Transform,
    UnitSphere,
)
from recon.layers.grouping import check_clouds
from recon.ops.neighbors import exact_distances

CLOUDS = torch.randn(16, 50, 3)


def draw(transform: Transform, seed: int = 0) -> torch.Tensor:
    return transform(CLOUDS, Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "transform",
    [RandomSubset(20), RandomRotation(), RandomScale(), RandomTranslate()],
    ids=lambda t: type(t).__name__,
)
def test_draws_follow_the_generator_alone(transform: Transform) -> None:
    before = torch.get_rng_state()
    assert torch.equal(draw(transform), draw(transform))
    assert not torch.equal(draw(transform), draw(transform, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subset_keeps_points_once() -> None:
    subset = draw(RandomSubset(20))
    matches = exact_distances(subset, CLOUDS).argmin(-1).sort(-1).values
    assert (matches.diff() > 0).all()
    assert (exact_distances(subset, CLOUDS).amin(-1) == 0).all()
    with pytest.raises(ValueError, match="cannot keep 51 of 50 points"):
        draw(RandomSubset(51))


def test_farthest_subsets_are_prefixes_of_each_other() -> None:
    assert torch.equal(FarthestSubset(30)(CLOUDS)[:, :10], FarthestSubset(10)(CLOUDS))


def test_unit_sphere_centres_and_scales() -> None:
    points = draw(UnitSphere())
    assert_close(points.mean(1), torch.zeros(16, 3), atol=1e-6, rtol=0)
    assert_close(points.norm(dim=-1).amax(1), torch.ones(16))


@pytest.mark.parametrize(("axis", "fixed"), [("x", 0), ("y", 1), ("z", 2)])
def test_rotation_keeps_its_axis_all_distances_and_handedness(axis: str, fixed: int) -> None:
    rotated = draw(RandomRotation(axis))
    assert torch.equal(rotated[..., fixed], CLOUDS[..., fixed])
    distances = (exact_distances(x, x) for x in (rotated, CLOUDS))
    assert_close(*distances, atol=1e-5, rtol=1e-4)
    turns = torch.linalg.lstsq(CLOUDS, rotated).solution
    assert_close(torch.linalg.det(turns), torch.ones(16))


def test_rotation_by_a_released_angle_gives_the_released_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = released_arrays("ops_misc.npz")
    angles = arrays("rotate_angles").view(-1, 1, 1)
    monkeypatch.setattr("recon.data.transforms._uniform", lambda *_: angles)
    rotated = RandomRotation("y")(arrays("points"), Generator())
    opposite = RandomRotation("y")
    monkeypatch.setattr("recon.data.transforms._uniform", lambda *_: -angles)
    # The sense of a random turn is free; its axis is not.
    expected = arrays("rotate")
    off = [(x - expected).abs().max() for x in (rotated, opposite(arrays("points"), Generator()))]
    assert min(off) < 1e-6


def test_angles_and_factors_fill_their_range() -> None:
    clouds = torch.tensor([[[1.0, 0, 0]]]).expand(5000, -1, -1)
    turned = RandomRotation("y", degrees=30.0)(clouds, Generator().manual_seed(0))
    angles = torch.atan2(turned[..., 2], turned[..., 0]).rad2deg().abs()
    assert 29 < angles.max() <= 30.001
    scaled = RandomScale(0.5, 2.0)(clouds, Generator().manual_seed(0))[..., 0]
    assert scaled.min() < 0.51 < 1.99 < scaled.max()


def test_scale_is_one_factor_a_cloud_or_one_an_axis() -> None:
    ratio = draw(RandomScale()) / CLOUDS
    assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    ratio = draw(RandomScale(anisotropic=True)) / CLOUDS
    assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert (ratio[:, 0, 0] - ratio[:, 0, 1]).abs().min() > 1e-4


def test_released_scaling_and_shifting_is_an_anisotropic_scale_and_a_translation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = released_arrays("ops_misc.npz")
    drawn = iter([arrays("scale_draw")[:, None], arrays("translate_draw")[:, None]])
    monkeypatch.setattr("recon.data.transforms._uniform", lambda *_: next(drawn))
    both = Compose([RandomScale(anisotropic=True), RandomTranslate()])
    assert_near(both(arrays("points"), Generator()), arrays("scale_translate"))


def test_clouds_of_no_use_are_named_before_they_spread() -> None:
    cloud = torch.randn(1, 20, 3)
    cloud[0, 5, 1] = torch.nan
    with pytest.raises(ValueError, match="cloud 0 holds a NaN or infinite coordinate at point 5"):
        UnitSphere()(cloud)
    with pytest.raises(ValueError, match="cannot keep 64 of 20 points"):
        FarthestSubset(64)(torch.randn(1, 20, 3))
    assert UnitSphere()(torch.randint(9, (2, 20, 3))).norm(dim=-1).max() == pytest.approx(1)
    for array in (np.zeros((1, 20, 3)), np.zeros((20, 3))):
        with pytest.raises(TypeError, match="must be a torch tensor"):
            check_clouds(array)
    with pytest.raises(ValueError, match=r"\(B, N, 3\), got \(20, 3\)"):
        check_clouds(torch.zeros(20, 3))
