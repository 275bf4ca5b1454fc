"""Normals of points: their length, and what is said about it."""

import numpy as np

from recon.data.io.points.cloud import build_cloud, normalize_normals
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
