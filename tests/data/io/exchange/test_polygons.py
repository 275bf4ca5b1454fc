"""Polygons are divided into triangles that cover them once and point to their side."""

import numpy as np
import pytest

from recon.data.io.meshes.exchange.polygons import triangulate_polygons, triangulate_rings

ARROW = np.array([[0, 0, 0], [4, 0, 0], [4, 2, 0], [2, 1, 0], [0, 2, 0]], float)


def measure(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    corners = points[triangles]
    sides = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.cross(*sides) / 2


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("step", [1, -1])
def test_a_concave_polygon_is_covered_from_any_corner(start: int, step: int) -> None:
    order = np.roll(np.arange(5), start)[::step]
    triangles = triangulate_polygons(ARROW, order, np.array([5]))
    areas = measure(ARROW, order[triangles])
    assert len(triangles) == 3
    assert (areas[:, 2] * step >= 0).all()
    assert areas[:, 2].sum() == step * 6


def test_polygons_of_all_sizes_keep_their_order() -> None:
    corners = np.array([0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 4, 0, 1, 2, 3])
    triangles = triangulate_polygons(ARROW, corners, np.array([5, 2, 3, 1, 4]))
    assert set(triangles[:3].ravel().tolist()) == set(range(5))
    np.testing.assert_array_equal(triangles[3], [7, 8, 9])
    assert set(triangles[4:].ravel().tolist()) == {11, 12, 13, 14}
    areas = np.linalg.norm(measure(ARROW, corners[triangles]), axis=1)
    np.testing.assert_allclose([areas[:3].sum(), areas[3], areas[4:].sum()], [6, 4, 4])
    assert triangulate_polygons(ARROW, corners[:4], np.array([2, 2])).shape == (0, 3)


def test_holes_are_left_out_in_any_plane() -> None:
    outline = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], float)
    hole = np.array([[1, 1, 0], [2, 1, 0], [2, 2, 0], [1, 2, 0]], float)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rings = [outline @ turn, hole @ turn]
    areas = measure(np.concatenate(rings), triangulate_rings(rings))
    normal = np.cross(rings[0][1] - rings[0][0], rings[0][2] - rings[0][1])
    assert (areas @ normal > 0).all()
    np.testing.assert_allclose(np.linalg.norm(areas, axis=1).sum(), 15)
