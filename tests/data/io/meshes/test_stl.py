"""STL: binary and text, colors of faces, and what is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from recon.data.io.meshes.stl import read_stl
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions

TRIANGLE = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], "<f4")


def read(content: bytes | str, folder: Path) -> MeshContent:
    path = folder / "x.stl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_stl(path, ReadOptions())


def write_text(*corners: str) -> str:
    lines = ["solid x", "facet normal 0 0 1", "outer loop", *(f"vertex {c}" for c in corners)]
    return "\n".join([*lines, "endloop", "endfacet", "endsolid x", ""])


def write_binary(*attributes: int, header: bytes = b"") -> bytes:
    facets = [bytes(12) + TRIANGLE.tobytes() + struct.pack("<H", value) for value in attributes]
    return header.ljust(80) + struct.pack("<I", len(facets)) + b"".join(facets)


@pytest.mark.parametrize("header", [b"", b"solid part of a scan", b"\0"])
def test_binary_files_are_told_by_their_size(header: bytes, tmp_path: Path) -> None:
    (surface,) = read(write_binary(0, 0, header=header), tmp_path).surfaces
    np.testing.assert_array_equal(surface.vertices[surface.faces], [TRIANGLE, TRIANGLE])
    assert surface.face_colors is None


@pytest.mark.parametrize("case", [str, str.upper])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n\n\t"])
def test_texts_of_several_solids_are_read(end: str, case: type[str], tmp_path: Path) -> None:
    text = write_text("0 0 0", "1 0 0", "0 1 0") + write_text("1e0 0 0", "-2.5 0 0", "0 1 +1")
    (surface,) = read(case(text).replace("\n", end), tmp_path).surfaces
    expected = [TRIANGLE.tolist(), [[1, 0, 0], [-2.5, 0, 0], [0, 1, 1]]]
    assert surface.vertices[surface.faces].tolist() == expected


def test_files_of_another_library_are_read(tmp_path: Path) -> None:
    box = trimesh.creation.box((1, 2, 3))
    for file_type in ("stl", "stl_ascii"):
        (surface,) = read(box.export(file_type=file_type), tmp_path).surfaces
        np.testing.assert_allclose(surface.vertices[surface.faces], box.triangles, atol=1e-6)


def test_colors_of_faces_are_read_in_both_conventions(tmp_path: Path) -> None:
    red, blue = 31 << 10 | 1 << 15, 31 | 1 << 15
    (surface,) = read(write_binary(red, blue), tmp_path).surfaces
    assert surface.face_colors.tolist() == [[1, 0, 0], [0, 0, 1]]
    header = b"COLOR=" + bytes([51, 102, 255, 255])
    (surface,) = read(write_binary(31, 31 << 10, 1 << 15, header=header), tmp_path).surfaces
    np.testing.assert_allclose(surface.face_colors, [[1, 0, 0], [0, 0, 1], [0.2, 0.4, 1]])
    content = read(write_binary(red, 0), tmp_path)
    assert content.surfaces[0].face_colors is None
    assert content.notes == ("1 of 2 faces have colors: none are used",)
    assert read(write_binary(7, 0), tmp_path).surfaces[0].face_colors is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes(80) + struct.pack("<I", 3) + bytes(100), "3 triangles"),
        (bytes(200), "0 triangles"),
        (write_text("0 0 0", "1 0 0", "0 1 0", "1 1 0"), "1 facet.* 4"),
        (write_text("0 0 0", "1 0", "0 1 0 5"), "three numbers"),
        (write_text("0 0 0", "1 0 0", "0 one 0"), "'one' is not a number"),
    ],
)
def test_files_of_other_sizes_are_refused(
    content: bytes | str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"x\.stl: .*{reason}"):
        read(content, tmp_path)
