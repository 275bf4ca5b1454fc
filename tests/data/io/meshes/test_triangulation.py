"""Polygons are split into triangles of the same area and orientation."""

import numpy as np
import pytest

from recon.data.io.meshes import triangulation
from recon.data.io.meshes.triangulation import triangulate

U_SHAPE = np.array([(1, 1), (1, 4), (0, 4), (0, 0), (4, 0), (4, 4), (3, 4), (3, 1)], float)
STAR = np.array(
    [
        (np.cos(angle) * radius, np.sin(angle) * radius)
        for angle, radius in zip(np.arange(10) * np.pi / 5, [1, 0.4] * 5, strict=True)
    ]
)


def compute_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def rotation(seed: int) -> np.ndarray:
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return matrix * np.sign(np.linalg.det(matrix))


def split(polygon: np.ndarray) -> np.ndarray:
    """Return the area vector of each triangle."""
    triangles, owners = triangulate(polygon, np.arange(len(polygon)), np.array([len(polygon)]))
    assert (owners == 0).all()
    a, b, c = polygon[triangles].transpose(1, 0, 2)
    return np.cross(b - a, c - a) / 2


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("polygon", [U_SHAPE, STAR, U_SHAPE[::-1], U_SHAPE[[0, 1, 2, 3]], STAR[:3]])
def test_triangles_cover_the_polygon_once_and_face_the_same_way(
    polygon: np.ndarray, first: int
) -> None:
    flat = np.roll(polygon, first, axis=0)
    turn, area = rotation(first), compute_area(flat)
    vectors = split(np.pad(flat, ((0, 0), (0, 1))) @ turn.T + 5)
    heights = vectors @ turn[:, 2]
    np.testing.assert_allclose(heights.sum(), area, rtol=1e-9)
    np.testing.assert_allclose(np.abs(heights).sum(), abs(area), rtol=1e-9)


def test_mixed_sizes_keep_their_order_and_degenerate_polygons_are_omitted() -> None:
    vertices = np.random.default_rng(0).random((9, 3))
    corners = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4])
    triangles, owners = triangulate(vertices, corners, np.array([3, 2, 0, 4, 1, 3]))
    assert owners.tolist() == [0, 3, 3, 5] or owners.tolist() == [0, 3, 3, 5, 5]
    assert triangles[0].tolist() == [0, 1, 2]
    assert set(triangles[1:3].ravel()) == {5, 6, 7, 8}
    assert triangles[3].tolist() == [10, 11, 12]


def test_an_arrowhead_is_split_at_its_inner_corner() -> None:
    arrow = np.array([(0, 0, 0), (2, 1, 0), (0, 2, 0), (1, 1, 0)], float)
    for first in range(4):
        vectors = split(np.roll(arrow, first, axis=0))
        np.testing.assert_allclose(vectors.sum(0), [0, 0, 1])
        assert (vectors[:, 2] > 0).all()


def test_polygons_without_a_plane_or_with_invalid_coordinates_become_fans() -> None:
    line = np.arange(6)[:, None] * np.ones(3)
    assert len(split(line)) == 4
    invalid = np.pad(U_SHAPE, ((0, 0), (0, 1)))
    invalid[3] = np.nan
    assert len(split(invalid)) == 6


def test_wrong_vertices_and_too_large_concave_polygons_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polygon = np.pad(U_SHAPE, ((0, 0), (0, 1)))
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match="outside its 8 vertices"):
            triangulate(polygon, np.array([0, 1, 2, wrong]), np.array([4]))
    monkeypatch.setattr(triangulation, "MAX_CONCAVE_CORNERS", 7)
    with pytest.raises(ValueError, match="8 corners, the maximum is 7: split"):
        split(polygon)
