"""Meshes: what is read beside a file, textures, and lines that would be misread."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.data.io import header_checks, mesh
from recon.data.io.shape import read_shape

XYZ = "property float x\nproperty float y\nproperty float z\n"
FACES = "property list uchar int vertex_indices\n"
HEADER = f"ply\nformat binary_little_endian 1.0\ncomment Gr\u00f6\u00dfe\nelement vertex 3\n{XYZ}"
CORNERS = np.eye(3, dtype="<f4")
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def write_materials(folder: Path, count: int) -> Path:
    """Write a mesh of as many materials, each with a texture of 8 x 8 pixels."""
    lines = ["mtllib a.mtl", TRIANGLE + "vt 0 0\nvt 1 0\nvt 0 1"]
    materials = []
    for number in range(count):
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
        materials += [f"newmtl m{number}", f"map_Kd {number}.png"]
        lines += [f"usemtl m{number}", "f 1/1 2/2 3/3"]
    (folder / "a.mtl").write_text("\n".join(materials))
    (folder / "a.obj").write_text("\n".join(lines))
    return folder / "a.obj"


@pytest.mark.parametrize(
    ("module", "limit", "value", "reason"),
    [
        (mesh, "MAX_MESH_PARTS", 2, r"\b3 "),
        (mesh, "MAX_TEXTURE_PIXELS", 191, "192 pixels"),
        (header_checks, "MAX_MESH_PARTS", 2, r"\b3 "),
    ],
)
def test_files_beside_a_mesh_have_limited_sizes(
    module: object,
    limit: str,
    value: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_materials(tmp_path, 3)
    assert read_shape(path, 200).colors is not None
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(ValueError, match=rf"a\.obj: .*{reason}"):
        read_shape(path, 200)


def test_files_beside_a_mesh_have_a_limited_size_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pixels = (
        write_materials(tmp_path, 9),
        np.random.default_rng(0).integers(0, 256, (8, 8, 3)),
    )
    for number in range(9):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    sizes = [file.stat().st_size for file in tmp_path.iterdir() if file != path]
    monkeypatch.setattr(mesh, "MAX_SIDECAR_BYTES", max(sizes))
    assert sum(sizes) > 4 * max(sizes)
    with pytest.raises(ValueError, match=r"a\.obj: .*files"):
        read_shape(path, 200)


def test_a_material_larger_than_its_limit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_materials(tmp_path, 1)
    Image.new("RGB", (8, 8), (250, 3, 7)).save(tmp_path / "0.png")
    assert (read_shape(path, 20).colors == (250, 3, 7)).all()
    monkeypatch.setattr(mesh, "MAX_SIDECAR_BYTES", (tmp_path / "0.png").stat().st_size - 1)
    colors = read_shape(path, 20).colors
    assert colors is None or not (colors == (250, 3, 7)).all()


def test_textures_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = write_materials(tmp_path, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png", "PPM")
    with pytest.raises(ValueError, match=r"a\.obj: .*PPM"):
        read_shape(path, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_beside_a_mesh_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.mtl")
    (tmp_path / "x.obj").write_text(f"mtllib m.mtl\n{TRIANGLE}usemtl a\nf 1 2 3\n")
    assert read_shape(tmp_path / "x.obj", 8).points.shape == (8, 3)


def test_meshes_read_nothing_outside_their_folder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (250, 3, 7)).save(tmp_path / "other.png")
    (tmp_path / "other.mtl").write_text("newmtl a\nKd 0.98 0.01 0.02\n")
    inside = tmp_path / "shapes"
    inside.mkdir()
    corners = f"{TRIANGLE}vt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    (inside / "a.mtl").write_text("newmtl a\nmap_Kd ../other.png\n")
    for library in ("a.mtl", "../other.mtl", f"{tmp_path}/other.mtl"):
        (inside / "a.obj").write_text(f"mtllib {library}\n{corners}")
        colors = read_shape(inside / "a.obj", 20).colors
        assert colors is None or not (colors[:, 0] >= 249).any()
