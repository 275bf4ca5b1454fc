"""OFF: prefixes, colors, lines, comments, polygons, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io.meshes.off import read_off
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import read_shape

CORNERS = "0 0 0\n1 0 0\n0 1 0\n"
FACE = "3 0 1 2\n"
COLORS = "0 0 0 255 0 0{a}\n1 0 0 0 255 0{a}\n0 1 0 0 0 255{a}\n"
NORMALS = CORNERS.replace("\n", " 0 0 1\n")
POINTS = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def read(text: str, folder: Path) -> MeshContent:
    path = folder / "x.off"
    path.write_bytes(text.encode())
    return read_off(path, ReadOptions())


@pytest.mark.parametrize(
    "text",
    [
        f"OFF\n3 1 0\n{CORNERS}{FACE}",
        f"OFF 3 1 0\n{CORNERS}{FACE}",
        f"OFF3 1 0\n{CORNERS}{FACE}",
        f"off\n3 1\n{CORNERS}{FACE}",
        f"3 1 0\n{CORNERS}{FACE}",
        f"OFF\n# one\n\n3 1 0 # two\n{CORNERS}# three\n{FACE}#",
        f"OFF\n3\n1\n0\n{CORNERS}{FACE}".replace(" ", "\n"),
        f"OFF 3 1 0 {CORNERS}{FACE}".replace("\n", " "),
        f"OFF\n3 1 0\n{CORNERS}{FACE}".replace("\n", "\r"),
        f"OFF\r\n3 1 3\r\n{CORNERS}{FACE}",
        f"NOFF\n3 1 0\n{NORMALS}{FACE}",
    ],
)
def test_headers_comments_and_lines_of_all_kinds_are_read(text: str, tmp_path: Path) -> None:
    (surface,) = read(text, tmp_path).surfaces
    assert surface.vertices.tolist() == POINTS
    assert surface.faces.tolist() == [[0, 1, 2]]
    assert surface.vertex_colors is None
    assert surface.face_colors is None


@pytest.mark.parametrize("prefix", ["COFF", "CNOFF", "NCOFF", "STCOFF", "OFF"])
@pytest.mark.parametrize("alpha", ["", " 255"])
def test_vertex_colors_are_read_with_and_without_alpha(
    prefix: str, alpha: str, tmp_path: Path
) -> None:
    lines = COLORS.format(a=alpha).splitlines()
    if "N" in prefix:
        lines = [f"{line[:5]} 0 0 1{line[5:]}" for line in lines]
    if "ST" in prefix:
        lines = [f"{line} 0.5 0.5" for line in lines]
    text = "\n".join(lines)
    content = read(f"{prefix}\n3 1 0\n{text}\n{FACE}", tmp_path)
    (surface,) = content.surfaces
    assert surface.vertices.tolist() == POINTS
    assert surface.vertex_colors.tolist() == (255 * np.eye(3)).tolist()
    assert any("does not declare" in note for note in content.notes) == (prefix == "OFF")
    points = read(f"{prefix}\n3 0 0\n{text}\n", tmp_path).points
    assert points.colors.tolist() == (255 * np.eye(3)).tolist()
    assert (points.normals is not None) == ("N" in prefix)


def test_colors_of_fractions_on_wrapped_lines_have_four_numbers(tmp_path: Path) -> None:
    text = "COFF\n3 1 0\n" + "".join(f"{x} {y} {z}\n1 0.5 0 1\n" for x, y, z in POINTS) + FACE
    (surface,) = read(text, tmp_path).surfaces
    assert surface.vertex_colors.tolist() == [[1, 0.5, 0]] * 3


def test_face_colors_follow_their_triangles(tmp_path: Path) -> None:
    square = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
    text = f"OFF\n4 2 0\n{square}3 0 1 2 255 0 0\n4 0 1 2 3 0 0 255 9\n"
    (surface,) = read(text, tmp_path).surfaces
    assert surface.faces.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3]]
    assert surface.face_colors.tolist() == [[255, 0, 0], [0, 0, 255], [0, 0, 255]]
    content = read(f"OFF\n4 2 0\n{square}3 0 1 2 1.0 0 0\n3 0 1 2\n", tmp_path)
    assert content.surfaces[0].face_colors is None
    assert content.notes == ("1 of 2 faces have colors: none are used",)
    content = read(f"OFF\n4 2 0\n{square}3 0 1 2 7\n3 0 1 2 5\n", tmp_path)
    assert content.surfaces[0].face_colors is None
    assert "color map" in content.notes[0]


def test_polygons_of_mixed_sizes_are_split(tmp_path: Path) -> None:
    corners = "0 0 0\n2 0 0\n2 1 0\n1 2 0\n0 1 0\n1 -1 0\n"
    text = f"OFF\n6 3 0\n{corners}5 0 1 2 3 4\n3 0 5 1\n2 0 1\n"
    for variant in (text, text.replace("\n2 1 0\n", "\n2 1\n0\n")):
        (surface,) = read(variant, tmp_path).surfaces
        assert len(surface.faces) == 4
        assert set(surface.faces[:3].ravel()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"OFF\n2 1 0\n{CORNERS}{FACE}", "1 faces and 6 numbers"),
        (f"OFF\n3 1 0\n{CORNERS}{FACE}{FACE}", "1 faces and 4 numbers"),
        (f"OFF\n3 0 0\n{CORNERS}{FACE}", "4 numbers follow"),
        ("OFF\n90 1 0\n0 0 0\n", "90 vertices.*ends after"),
        ("OFF\n8 6\n", "8 vertices.*ends after"),
        ("OFF\n3 0 0\n0 0 0 1 0 0 0 \n", "ends after 7 of 9"),
        ("4OFF\n1 0 0\n0 0 0 1\n", "four coordinates: export"),
        ("nOFF\n5 1 0 0\n0 0 0 1 2\n", "coordinates than three: export"),
        ("OFF BINARY\n\0\0\0", "binary OFF file: export it as text"),
        (f"OFF\n3 1 0\n{CORNERS}-3 0 1 2\n", "declares -3 vertices"),
        (f"OFF\n3 1 0\n{CORNERS}9 0 1 2\n", "declares 9 vertices"),
        (f"OFF\n3 1 0\n{CORNERS}4 0 1 2 9\n", "outside its 3 vertices"),
        (f"OFF\n3 1 0\n{CORNERS}3 0 1 two\n", "'two' is not a number"),
        ("OFF\nthree 1 0\n", "start with OFF"),
    ],
)
def test_files_that_do_not_hold_what_they_declare_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"x\.off: .*{reason}"):
        read(text, tmp_path)


def test_no_color_is_invented(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF\n4 0 0\n" + "\n".join("0 1 2" for _ in range(4)))
    assert read_shape(tmp_path / "a.off").colors is None


NORMALS_FIRST, COLORS_FIRST = "{p} 0 0 -{n} 255 128 0", "{p} 255 128 0 255 0 0 -{n}"


# Normals of length 1 are found at either place; the prefix tells the order of others.
@pytest.mark.parametrize(
    ("order", "length", "prefix"),
    [
        *((o, 1, p) for o in (NORMALS_FIRST, COLORS_FIRST) for p in ("CNOFF", "NCOFF")),
        (NORMALS_FIRST, 2, "CNOFF"),
        (COLORS_FIRST, 2, "NCOFF"),
    ],
)
def test_normals_and_colors_may_be_in_either_order(
    order: str, length: int, prefix: str, tmp_path: Path
) -> None:
    lines = "\n".join(order.format(p=p, n=length) for p in CORNERS.splitlines())
    points = read(f"{prefix}\n3 0 0\n{lines}\n", tmp_path).points
    assert points.colors.tolist() == [[255, 128, 0]] * 3
    assert points.normals.tolist() == [[0, 0, -length]] * 3
