"""Files that other programs wrote, and sample models; their origin is in tests/data/io/files."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.data.io.meshes.gltf import draco
from recon.data.io.meshes.surface import Surface
from recon.data.io.shape import read_content, read_shape

FILES = Path(__file__).parents[2] / "files" / "gltf"
ROWS, COLUMNS = (values.ravel() for values in np.mgrid[:8, :8])
GRID = np.stack([ROWS, COLUMNS, ROWS * COLUMNS % 5], 1).astype(float)
COLORS = np.stack([30 * ROWS, 30 * COLUMNS, np.full(64, 7)], 1)


def read_surface(name: str) -> Surface:
    content = read_content(FILES / name)
    (surface,) = content.surfaces  # type: ignore[union-attr]
    return surface


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("plain.gltf", 0),
        ("plain.glb", 0),
        ("quantized.glb", 1e-3),
        ("pack.glb", 1e-3),
        ("draco.glb", 1e-3),
        ("draco_sequential.glb", 1e-3),
        ("draco_quantized.glb", 2e-3),
        ("pipeline_draco.glb", 2e-3),
    ],
)
def test_a_grid_from_other_programs(name: str, tolerance: float) -> None:
    surface = read_surface(name)
    # Compression changes the order of the vertices, but not what they are.
    order = np.lexsort(np.rint(surface.vertices[:, 1::-1]).T)
    np.testing.assert_allclose(surface.vertices[order], GRID, atol=tolerance)
    assert surface.vertex_colors is not None
    np.testing.assert_array_equal(surface.vertex_colors[order], COLORS)
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert len(normals) == 98
    np.testing.assert_allclose(normals[:, 2], 1, atol=1e-2)


def test_sparse_positions_without_a_base() -> None:
    expected = GRID.ravel().copy()
    expected[np.arange(192) % 21 > 0] = 0
    np.testing.assert_array_equal(read_surface("sparse.glb").vertices, expected.reshape(64, 3))


def test_instances_from_another_program() -> None:
    surface = read_surface("instances.glb")
    copies = [GRID * (1 + k, 1, 1) + (10 * k, 0, 0) for k in range(3)]
    np.testing.assert_allclose(surface.vertices.reshape(3, 64, 3), copies, atol=1e-6)


def test_meshopt_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"meshopt\.glb: .*meshopt.*: export it without"):
        read_shape(FILES / "meshopt.glb", 20)


def test_draco_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *values: Any, **options: Any) -> Any:
        if name == "DracoPy":
            raise ImportError(name)
        return load(name, *values, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r"draco\.glb: .*recon-pointcloud\[draco\]"):
        read_shape(FILES / "draco.glb", 20)


@pytest.mark.parametrize("name", ["draco.glb", "draco_sequential.glb"])
def test_draco_headers_are_checked_before_the_decoder(name: str) -> None:
    content = (FILES / name).read_bytes()
    mesh = content[content.index(b"DRACO") :]
    assert draco.read_draco_sizes(mesh) == (64, 98)
    with_metadata = mesh[:9] + b"\0\x80" + b"\1\0\1\4name\3abc\0\0\0" + mesh[11:]
    assert draco.read_draco_sizes(with_metadata) == (64, 98)
    huge = mesh[:11] + b"\xff" * 9 + b"\1" + mesh[12:]
    sizes = draco.read_draco_sizes(huge)
    assert sizes is not None
    assert sum(sizes) > 98
    with pytest.raises(ValueError, match="ten bytes"):
        draco.read_draco_sizes(mesh[:11] + b"\xff" * 20)
    for damaged in (b"DRACO", b"X" + mesh[1:], mesh[:7] + b"\0" + mesh[8:]):
        with pytest.raises(ValueError, match="no Draco mesh"):
            draco.read_draco_sizes(damaged)


def test_arrows_of_the_texture_transform_sample_point_to_the_green_marks() -> None:
    cloud = read_shape(FILES / "TextureTransformTest.gltf", 30_000)
    assert cloud.colors is not None
    points, colors = cloud.points[:, :2], cloud.colors.astype(int)
    for x, color in ((-1.1, (0, 1, 0)), (0, (0, 0, 1)), (1.1, (0, 1, 1))):  # checked: U, V, UV
        inside = (np.abs(points - (x, 0.55)) < 0.49).all(1)
        median = np.median(colors[inside], axis=0)
        assert ((median > 150) == np.array(color, np.bool_)).all()
    lower = points[:, 1] < -0.05
    black = lower & (colors.max(1) < 60)
    green = lower & (colors[:, 1] > 150) & (colors[:, 0] < 60) & (colors[:, 2] < 60)
    for x in (-1.1, 0, 1.1):
        here = np.abs(points[:, 0] - x) < 0.55
        tips, marks = points[here & black], points[here & green]
        assert np.linalg.norm(tips[:, None] - marks[None], axis=2).min() < 0.15


def test_a_fan_of_the_asset_generator() -> None:
    surface = read_surface("Mesh_PrimitiveMode_12.gltf")
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1).sum() / 2, 1, rtol=1e-6)
    assert (normals[:, 2] > 0).all() or (normals[:, 2] < 0).all()
