"""Point-cloud transforms: geometry, random draws, and the fields of points."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Generator
from torch.testing import assert_close

from conftest import assert_near, released_arrays
from recon.cli.config_dir import conf_dir
from recon.data.batch import Clouds
from recon.data.transforms import (
    AddHeight,
    AlignUpAxis,
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
    axis_index,
)
from recon.layers.grouping import check_clouds
from recon.ops.neighbors import pairwise_distances

CLOUDS = torch.randn(16, 50, 3)


def apply_seeded(transform: Transform, seed: int = 0) -> torch.Tensor:
    return transform(CLOUDS, Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "transform",
    [RandomPointSample(20), RandomRotation(), RandomScale(), RandomTranslate()],
    ids=lambda t: type(t).__name__,
)
def test_random_draws_depend_on_the_generator_only(transform: Transform) -> None:
    before = torch.get_rng_state()
    assert torch.equal(apply_seeded(transform), apply_seeded(transform))
    assert not torch.equal(apply_seeded(transform), apply_seeded(transform, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_random_point_sample_has_no_repeated_points() -> None:
    subset = apply_seeded(RandomPointSample(20))
    matches = pairwise_distances(subset, CLOUDS).argmin(-1).sort(-1).values
    assert (matches.diff() > 0).all()
    assert (pairwise_distances(subset, CLOUDS).amin(-1) == 0).all()
    with pytest.raises(ValueError, match="cannot keep 51 of 50 points"):
        apply_seeded(RandomPointSample(51))


def test_smaller_farthest_point_samples_are_prefixes_of_larger_ones() -> None:
    assert torch.equal(FarthestPointSample(30)(CLOUDS)[:, :10], FarthestPointSample(10)(CLOUDS))


def test_unit_sphere_centers_and_scales() -> None:
    points = apply_seeded(UnitSphere())
    assert_close(points.mean(1), torch.zeros(16, 3), atol=1e-6, rtol=0)
    assert_close(points.norm(dim=-1).amax(1), torch.ones(16))


@pytest.mark.parametrize(("axis", "fixed"), [("x", 0), ("y", 1), ("z", 2)])
def test_rotation_preserves_its_axis_distances_and_handedness(axis: str, fixed: int) -> None:
    rotated = apply_seeded(RandomRotation(axis))
    assert torch.equal(rotated[..., fixed], CLOUDS[..., fixed])
    distances = (pairwise_distances(x, x) for x in (rotated, CLOUDS))
    assert_close(*distances, atol=1e-5, rtol=1e-4)
    rotations = torch.linalg.lstsq(CLOUDS, rotated).solution
    assert_close(torch.linalg.det(rotations), torch.ones(16))


def test_rotation_matches_the_released_implementation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = released_arrays("ops_misc.npz")
    angles = arrays("rotate_angles").view(-1, 1, 1)
    monkeypatch.setattr("recon.data.transforms._draw_uniform", lambda *_: angles)
    rotated = RandomRotation("y")(arrays("points"), Generator())
    opposite = RandomRotation("y")
    monkeypatch.setattr("recon.data.transforms._draw_uniform", lambda *_: -angles)
    # The sign of a random angle is arbitrary; the axis is not.
    expected = arrays("rotate")
    results = rotated, opposite(arrays("points"), Generator())
    assert min((points - expected).abs().max() for points in results) < 1e-6


def test_angles_and_scales_cover_their_range() -> None:
    clouds = torch.tensor([[[1.0, 0, 0]]]).expand(5000, -1, -1)
    rotated = RandomRotation("y", degrees=30.0)(clouds, Generator().manual_seed(0))
    angles = torch.atan2(rotated[..., 2], rotated[..., 0]).rad2deg().abs()
    assert 29 < angles.max() <= 30.001
    scaled = RandomScale(0.5, 2.0)(clouds, Generator().manual_seed(0))[..., 0]
    assert scaled.min() < 0.51 < 1.99 < scaled.max()


def test_scale_is_one_factor_per_cloud_or_per_axis() -> None:
    ratio = apply_seeded(RandomScale()) / CLOUDS
    assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    ratio = apply_seeded(RandomScale(anisotropic=True)) / CLOUDS
    assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert (ratio[:, 0, 0] - ratio[:, 0, 1]).abs().min() > 1e-4


def test_scale_and_translation_match_the_released_implementation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = released_arrays("ops_misc.npz")
    draws = iter([arrays("scale_draw")[:, None], arrays("translate_draw")[:, None]])
    monkeypatch.setattr("recon.data.transforms._draw_uniform", lambda *_: next(draws))
    transform = Compose([RandomScale(anisotropic=True), RandomTranslate()])
    assert_near(transform(arrays("points"), Generator()), arrays("scale_translate"))


def test_invalid_clouds_raise_errors() -> None:
    cloud = torch.randn(1, 20, 3)
    cloud[0, 5, 1] = torch.nan
    with pytest.raises(ValueError, match="cloud 0 has a NaN or infinite coordinate at point 5"):
        UnitSphere()(cloud)
    with pytest.raises(ValueError, match="cannot keep 64 of 20 points"):
        FarthestPointSample(64)(torch.randn(1, 20, 3))
    assert UnitSphere()(torch.randint(9, (2, 20, 3))).norm(dim=-1).max() == pytest.approx(1)
    for array in (np.zeros((1, 20, 3)), np.zeros((20, 3))):
        with pytest.raises(TypeError, match="must be a torch tensor"):
            check_clouds(array)
    with pytest.raises(ValueError, match=r"\(B, N, 3\), got \(20, 3\)"):
        check_clouds(torch.zeros(20, 3))


def build_clouds_with_fields() -> Clouds:
    normals = torch.nn.functional.normalize(torch.randn(16, 50, 3), dim=-1)
    labels = torch.arange(50).expand(16, 50)
    return Clouds(CLOUDS, normals, torch.rand(16, 50, 3), point_labels=labels)


ALL_TRANSFORMS = [
    RandomPointSample(20), FarthestPointSample(20), PointDropout(), UnitSphere(),
    AlignUpAxis("z", "y"),
    AddHeight("y"), RandomRotation("z"), RandomSO3Rotation(), RandomScale(anisotropic=True),
    RandomTranslate(), RandomJitter(), RandomColorDrop(),
]  # fmt: skip


@pytest.mark.parametrize("transform", ALL_TRANSFORMS, ids=lambda t: type(t).__name__)
def test_fields_stay_with_their_points(transform: Transform) -> None:
    before = build_clouds_with_fields()
    after = transform(before, Generator().manual_seed(0))
    points = transform(before.points, Generator().manual_seed(0))
    assert torch.equal(after.points, points)
    rows = after.point_labels
    if not isinstance(transform, RandomColorDrop):
        assert torch.equal(after.colors, before.colors.gather(1, rows[..., None].expand(-1, -1, 3)))
    assert_close(after.normals.norm(dim=-1), torch.ones(after.normals.shape[:2]))


@pytest.mark.parametrize("transform", ALL_TRANSFORMS, ids=lambda t: type(t).__name__)
def test_without_a_generator_the_global_one_is_used(transform: Transform) -> None:
    torch.manual_seed(3)
    first = transform(CLOUDS)
    torch.manual_seed(3)
    assert torch.equal(first, transform(CLOUDS))


@pytest.mark.parametrize(
    "transform",
    [UnitSphere(), FarthestPointSample(20), AlignUpAxis("x", "z"), AddHeight()],
    ids=lambda t: type(t).__name__,
)
def test_transforming_a_batch_equals_transforming_each_sample(transform: Transform) -> None:
    clouds = build_clouds_with_fields()
    batch = transform(clouds)
    for row in range(16):
        sample = transform(Clouds(*[None if f is None else f[row : row + 1] for f in clouds]))
        for field, expected in zip(sample, batch, strict=True):
            assert (field is None) == (expected is None)
            if field is not None:
                assert_close(field[0], expected[row])


def test_jitter_is_independent_clipped_noise_for_each_point() -> None:
    noise = RandomJitter(0.01, 0.015)(torch.zeros(64, 500, 3), Generator().manual_seed(0))
    assert noise.abs().max() == pytest.approx(0.015)
    assert 0.007 < noise.std() < 0.01
    assert len(noise.flatten().unique()) > 50_000


def test_dropped_points_are_replaced_by_the_first() -> None:
    clouds = build_clouds_with_fields()
    dropped = PointDropout(0.875)(clouds, Generator().manual_seed(0))
    kept_share = (dropped.point_labels == clouds.point_labels).float().mean(1)
    assert ((dropped.point_labels == clouds.point_labels) | (dropped.point_labels == 0)).all()
    assert kept_share.min() < 0.4 < 0.8 < kept_share.max()
    assert torch.equal(PointDropout(0.0)(CLOUDS), CLOUDS)
    with pytest.raises(ValueError, match="max_dropout_ratio must be in"):
        PointDropout(1.0)


def test_so3_rotations_are_uniform_and_proper() -> None:
    axis = torch.tensor([0.0, 0.0, 1.0]).expand(4000, 1, 3)
    basis = torch.eye(3).expand(4000, 3, 3)
    rotated = RandomSO3Rotation()(basis, Generator().manual_seed(0))
    assert_close(rotated @ rotated.transpose(1, 2), basis, atol=1e-5, rtol=0)
    assert_close(torch.linalg.det(rotated), torch.ones(4000), atol=1e-5, rtol=0)
    heights = RandomSO3Rotation()(axis, Generator().manual_seed(1))[:, 0, 2]
    # Archimedes: the height of a uniform point on the sphere is uniform.
    assert_close(heights.sort().values, torch.linspace(-1, 1, 4000), atol=0.05, rtol=0)


def test_so3_rotation_equals_the_quaternion_rotation_matrix() -> None:
    generator = Generator().manual_seed(5)
    w, x, y, z = torch.nn.functional.normalize(torch.randn(1, 4, generator=generator), dim=1)[0]
    rotation = torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]),
            torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]),
            torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]),
        ]
    )
    rotated = RandomSO3Rotation()(CLOUDS[:1], Generator().manual_seed(5))
    assert_close(rotated[0], CLOUDS[0] @ rotation.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), [("z", "y"), ("y", "z"), ("x", "y"), ("y", "y")])
def test_align_up_axis_rotates_source_to_target(source: str, target: str) -> None:
    aligned = AlignUpAxis(source, target)(torch.eye(3)[None])[0]
    assert torch.linalg.det(aligned) == 1
    assert aligned["xyz".index(source)].tolist() == torch.eye(3)["xyz".index(target)].tolist()
    mirrored = AlignUpAxis(source, target, mirror=True)(torch.eye(3)[None])[0]
    assert torch.linalg.det(mirrored) == (1 if source == target else -1)
    with pytest.raises(ValueError, match="axis must be x, y or z, got 'up'"):
        AlignUpAxis("up", "y")


def test_height_is_relative_to_the_lowest_point() -> None:
    height = AddHeight("z")(Clouds(CLOUDS)).height
    assert (height >= 0).all()
    assert_close(height[..., 0] + CLOUDS[..., 2].amin(1, keepdim=True), CLOUDS[..., 2])


def test_normals_stay_orthogonal_under_anisotropic_scale() -> None:
    tangent, other = torch.randn(2, 16, 50, 3)
    normals = torch.nn.functional.normalize(torch.linalg.cross(tangent, other), dim=-1)
    scale = RandomScale(0.5, 2.0, anisotropic=True)
    stretched = scale(Clouds(tangent, normals), Generator().manual_seed(0))
    assert_close(
        (stretched.points * stretched.normals).sum(-1), torch.zeros(16, 50), atol=1e-5, rtol=0
    )


def test_colors_are_dropped_for_whole_clouds() -> None:
    colors = RandomColorDrop(0.5, gray=0.4)(
        build_clouds_with_fields(), Generator().manual_seed(0)
    ).colors
    is_gray = (colors == 0.4).all(-1)
    assert torch.equal(is_gray.all(1), is_gray.any(1))
    assert 2 < is_gray.all(1).sum() < 14
    assert RandomColorDrop()(Clouds(CLOUDS)).colors is None


@pytest.mark.parametrize("path", sorted((Path(conf_dir()) / "transform").glob("*.yaml")))
def test_configured_transforms_run(path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [f"transform={path.stem}", "num_points=1024"])
    transform = instantiate(cfg.transform, _convert_="all")
    before = Clouds(torch.randn(2, 2048, 3), colors=torch.rand(2, 2048, 3))
    after = transform(before, Generator().manual_seed(0))
    assert len(after.points) == len(after.colors) == 2
    assert after.points.shape[1] in (1024, 2048)
    assert not torch.equal(after.points, transform(before, Generator().manual_seed(1)).points)


def test_axes_may_be_in_upper_case() -> None:
    clouds = torch.randn(1, 8, 3)
    assert torch.equal(AlignUpAxis("Z", "Y")(clouds), AlignUpAxis("z", "y")(clouds))
    assert [axis_index(name) for name in "xyzXYZ"] == [0, 1, 2, 0, 1, 2]
    for name in ("xy", "", "q"):
        with pytest.raises(ValueError, match="axis must be x, y or z"):
            axis_index(name)
