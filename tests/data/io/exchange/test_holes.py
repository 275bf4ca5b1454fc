"""Polygons with holes are divided into triangles that point to their side."""

import numpy as np

from recon.data.io.meshes.exchange.collada.holes import triangulate_rings


def measure(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    corners = points[triangles]
    sides = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.cross(*sides) / 2


def test_holes_are_left_out_in_any_plane() -> None:
    outline = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], float)
    hole = np.array([[1, 1, 0], [2, 1, 0], [2, 2, 0], [1, 2, 0]], float)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rings = [outline @ turn, hole @ turn]
    areas = measure(np.concatenate(rings), triangulate_rings(rings))
    normal = np.cross(rings[0][1] - rings[0][0], rings[0][2] - rings[0][1])
    assert (areas @ normal > 0).all()
    np.testing.assert_allclose(np.linalg.norm(areas, axis=1).sum(), 15)
