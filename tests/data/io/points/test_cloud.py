"""Clouds of points: their place, normals and colors."""

import numpy as np
import pytest

from recon.data.io.points.cloud import (
    build_cloud,
    compute_recenter_offset,
    make_cloud,
    normalize_colors,
    normalize_normals,
)
from recon.data.io.points.table import PointTable, ReadOptions

UNIT = np.eye(3, dtype=np.float32)


def test_normals_of_length_one_are_kept_as_they_are() -> None:
    normals = UNIT * np.array([[1], [0.99], [1.01]], np.float32)
    kept, notes = normalize_normals(normals)
    np.testing.assert_array_equal(kept, normals)
    assert notes == ()


def test_other_normals_are_normalized_and_counted() -> None:
    normals = np.array([[0, 0, 2], [0, 3, 4], [1, 0, 0], [0, 0, 0], [np.nan, 0, 1]])
    result, notes = normalize_normals(normals)
    expected = [[0, 0, 1], [0, 0.6, 0.8], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(result, expected, atol=1e-12)
    assert notes == ("2 of 5 normals did not have length 1: normalized",)
    assert normalize_normals(np.array([[0, 127, 0]], np.int8))[0].tolist() == [[0, 1, 0]]


def test_normals_that_are_all_zero_are_dropped() -> None:
    cloud = build_cloud(PointTable(UNIT, np.zeros((3, 3))), "a.ply", ReadOptions())
    assert cloud.normals is None
    assert cloud.notes == ("the normals are all zero: dropped",)


UTM = np.array([698_500, 6_259_621, 100.0])
GRID = np.random.default_rng(0).uniform(-20, 20, (500, 3)).round(2)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<i8", "<u4"])
@pytest.mark.parametrize("num_far", [0, 1, 20])
def test_far_points_do_not_undo_the_shift_of_a_cloud(dtype: str, num_far: int) -> None:
    points = ((GRID + UTM) * (100 if dtype[1] != "f" else 1)).astype(dtype)
    points[:num_far] = 0
    cloud = make_cloud(points, "a")
    restored = cloud.points[num_far:].astype(float) + cloud.origin
    np.testing.assert_allclose(restored, points[num_far:], atol=2e-4 if dtype[1] != "f" else 2e-6)


def test_clouds_near_the_origin_are_not_shifted_for_a_far_point() -> None:
    points = GRID.copy()
    points[0] = 1e8
    assert compute_recenter_offset(points) is None
    assert compute_recenter_offset(GRID + 100) is None
    assert compute_recenter_offset(np.zeros((3, 3))) is None
    assert compute_recenter_offset(np.full((9, 3), 1e7)) is None  # no extent
    assert compute_recenter_offset((GRID + UTM).astype(np.float32)) is None  # rounded before


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (np.float32([0, 0.5, 1.0000002]), [0, 0.5, 1]),
        (np.float64([-1e-7, 0.25, 1]), [0, 0.25, 1]),
        (np.float64([0.5, 0.2, 1.03]), [0.5, 0.2, 1]),
        (np.float64([0.0, 1, 0]), [0, 1, 0]),
        (np.int64([0, 1, 0]), [0, 1, 0]),
        (np.float64([0.0, 255.4, 17.6]), np.uint8([0, 255, 18])),
        (np.float64([-0.4, 255, 3]), np.uint8([0, 255, 3])),
        (np.uint16([0, 255, 1]), np.uint8([0, 255, 1])),
        (np.uint16([1, 0, 1]), np.uint8([1, 0, 1])),
        (np.uint8([1, 0, 1]), np.uint8([1, 0, 1])),
        (np.uint16([0, 65535, 257]), [0, 1, 1 / 255]),
        (np.float64([0, 65535, 257]), [0, 1, 1 / 255]),
    ],
)
def test_colors_of_each_type_and_range(colors: np.ndarray, expected: np.ndarray) -> None:
    rgb = normalize_colors(np.tile(colors, (4, 1)), "a")
    assert rgb.dtype == (np.uint8 if isinstance(expected, np.ndarray) else np.float32)
    np.testing.assert_allclose(rgb, np.tile(expected, (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("value", [-0.1, -3, 70_000])
def test_colors_outside_of_all_ranges_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^a: its colors are in \["):
        normalize_colors(np.array([[0.5, 1, value]]), "a")
