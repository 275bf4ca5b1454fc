"""Meshes that other programs wrote are read exactly."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io.meshes.surface import MeshContent, Surface
from recon.data.io.shape import read_content

FILES = Path(__file__).parents[1] / "files" / "mesh"
VERTICES = np.array([(0, 0, 0), (1, 0, 0), (1, 2, 0), (0, 2, 0.5)])
TRIANGLES = [[0, 1, 2], [0, 2, 3]]
QUAD = [[0, 1, 2], [0, 1, 2], [0, 2, 3]]
REVERSED_QUAD = [[0, 1, 2], [3, 2, 1], [3, 1, 0]]
COLORS = [[255, 0, 0], [0, 128, 0], [0, 0, 255], [10, 20, 30]]


def read_surface(name: str) -> Surface:
    content = read_content(FILES / name)
    assert isinstance(content, MeshContent)
    (surface,) = content.surfaces
    return surface


@pytest.mark.parametrize(
    ("name", "faces"),
    [
        *((f"meshlab.{suffix}", TRIANGLES) for suffix in ("off", "ply", "stl")),
        *((f"meshio.{suffix}", TRIANGLES) for suffix in ("off", "stl")),
        *((f"meshio.{suffix}", QUAD) for suffix in ("obj", "ply")),
        *((f"vtk.{suffix}", REVERSED_QUAD) for suffix in ("obj", "ply")),
        ("vtk.stl", TRIANGLES),
    ],
)
def test_triangles_and_quads_are_read(name: str, faces: list[list[int]]) -> None:
    surface = read_surface(name)
    np.testing.assert_array_equal(surface.vertices[surface.faces], VERTICES[faces])


@pytest.mark.parametrize("name", ["meshlab.off", "meshlab.ply", "vtk.ply"])
def test_colors_of_vertices_are_read(name: str) -> None:
    assert read_surface(name).vertex_colors.tolist() == COLORS


@pytest.mark.parametrize("name", ["meshlab.off", "meshlab.stl"])
def test_colors_of_faces_are_read(name: str) -> None:
    colors = read_surface(name).face_colors
    np.testing.assert_allclose(colors / colors.max(), [[1, 0, 0], [0, 0, 1]])


def test_colors_and_materials_of_meshlab_are_read() -> None:
    first, second = read_content(FILES / "meshlab.obj").surfaces
    assert first.base_color.tolist() == [1, 0, 0]
    assert second.base_color.tolist() == [0, 0, 1]
    np.testing.assert_allclose(first.vertex_colors * 255, COLORS[:3], atol=0.01)
    assert second.vertices[second.faces].tolist() == [VERTICES[[0, 2, 3]].tolist()]
