"""OBJ: faces, indices, colors, materials and textures, and what is read beside a file."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damage import assert_damage_is_read_or_named
from recon.data.io.meshes import obj, textures
from recon.data.io.meshes.obj import read_obj
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import read_shape

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
PLACES = "vt 0 0\nvt 1 0\nvt 0 1\n"
CORNERS = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def read(text: str | bytes, folder: Path) -> MeshContent:
    path = folder / "x.obj"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_obj(path, ReadOptions())


@pytest.mark.parametrize(
    "text",
    [
        f"{TRIANGLE}f 1 2 3\n",
        f"# a\n{TRIANGLE}f 1 2 3",
        "v 0 0 0 # a\nv 1 0 0 1.0 # b\nv 0 1 0 #c\nf 1 2 3 # d\n",
        "v 0 0 \\\n0\nv 1 0 0\nv 0 1 0\nf 1 \\\r\n 2 3\n",
        f"{TRIANGLE}f 1 2 3\n".replace("\n", "\r\n"),
        f"{TRIANGLE}f 1 2 3\n".replace("\n", "\r"),
        f"{TRIANGLE}f 1 2 3\n".replace(" ", "\t  "),
        f"{TRIANGLE}fo 1 2 3\n".replace("\n", " \n  "),
        f"mtllib\no a\ng a b\ns 1\nusemtl\n{TRIANGLE}vp 1 2\nf 1 2 3\nl 1 2\np 1\n",
        f"{TRIANGLE}vn 0 0 1\nf 1//1 2//1 3//1\n",
        f"{TRIANGLE}{PLACES}f 1/1 2/2 3/3\n",
        f"{TRIANGLE}{PLACES}vn 0 0 1\nf 1/1/1 2/2/1 3/3/1\n",
        f"{TRIANGLE}{PLACES}vn 0 0 1\nf 1 2/2/1 3//1\n",
        f"{TRIANGLE}{PLACES}f 1/ 2/2/ 3//\n",
        f"{TRIANGLE}f -3 -2 -1\nv 9 9 9\n",
        f"v 9 9 9\n{TRIANGLE}f -3 -2 4\nv 9 9 9\nv 8 8 8\n",
        f"{TRIANGLE}{PLACES}f -3/-3 -2/-2 -1/-1\nvt 5 5\n",
    ],
)
def test_lines_and_indices_of_all_kinds_are_read(text: str, tmp_path: Path) -> None:
    (surface,) = read(text, tmp_path).surfaces
    assert surface.vertices[surface.faces].tolist() == [CORNERS]
    assert surface.vertex_colors is None
    assert surface.base_color is None
    assert surface.texture is None


def test_indices_of_each_face_are_relative_to_it(tmp_path: Path) -> None:
    text = f"{TRIANGLE}f -3 -2 -1\nv 0 0 1\nv 1 0 1\nv 0 1 1\nf -3 -2 -1\nf -6 -5 6\n"
    (surface,) = read(text, tmp_path).surfaces
    assert surface.faces.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 5]]


def test_polygons_of_mixed_sizes_are_split(tmp_path: Path) -> None:
    outline = [(1, 1), (1, 4), (0, 4), (0, 0), (4, 0), (4, 4), (3, 4), (3, 1)]
    text = "".join(f"v {x} {y} 0\n" for x, y in outline)
    (surface,) = read(f"{text}f 3 4 5 6 7 8 1 2\nf 1 2 3\nf 4 5 6 7\n", tmp_path).surfaces
    assert len(surface.faces) == 6 + 1 + 2
    cloud = read_shape(tmp_path / "x.obj", 10)
    assert np.isin(cloud.normals[:, 2], (-1, 1)).all()
    a, b, c = surface.vertices[surface.faces[:6]].transpose(1, 0, 2)
    heights = np.cross(b - a, c - a)[:, 2] / 2
    assert (heights > 0).all()
    assert heights.sum() == pytest.approx(10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("1 0.5 0", [1, 0.5, 0]),
        ("255 128 0", [255, 128, 0]),
        ("1.0 255 128 0", [255, 128, 0]),
        ("255 128 0 255", [255, 128, 0]),
        ("1.0 0.5 0.25 0 1", [0.5, 0.25, 0]),
    ],
)
def test_vertex_colors_follow_three_or_four_coordinates(
    values: str, expected: list[float], tmp_path: Path
) -> None:
    text = TRIANGLE.replace("\n", f" {values}\n")
    (surface,) = read(f"{text}f 1 2 3\n", tmp_path).surfaces
    assert surface.vertex_colors.tolist() == [expected] * 3
    points = read(f"{text}vn 0 0 1\nvn 0 1 0\nvn 1 0 0\np 1 2 3\n", tmp_path).points
    assert points.colors.tolist() == [expected] * 3
    assert points.normals.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    content = read(f"{text}v 9 9 9\nf 1 2 3\n", tmp_path)
    assert content.surfaces[0].vertex_colors is None
    assert content.notes == ("3 of 4 vertices have colors: none are used",)


def write_image(folder: Path, name: str) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    (folder / name).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return pixels


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("map_Kd one two.png", [[0, 1], [1, 1], [0, 0]]),
        ("map_kd   images\\one two.png  ", [[0, 1], [1, 1], [0, 0]]),
        ("map_Kd C:\\work\\one two.png", [[0, 1], [1, 1], [0, 0]]),
        ('map_Kd "one two.png"', [[0, 1], [1, 1], [0, 0]]),
        ("map_Kd -s 2 3 1 one two.png", [[0, 1], [2, 1], [0, -2]]),
        ("map_Kd -s 2 -o 0.5 0.25 -blendu on one two.png",
         [[0.5, 0.75], [2.5, 0.75], [0.5, -0.25]]),
        ("map_Kd -clamp on -bm 1 -type sphere one two.png", [[0, 1], [1, 1], [0, 0]]),
        ("map_Kd -mm 0 2 -t 1 1 1 one two.png", [[0, 1], [1, 1], [0, 0]]),
    ],
)  # fmt: skip
def test_textures_are_found_and_placed(
    statement: str, place: list[list[float]], tmp_path: Path
) -> None:
    pixels = write_image(tmp_path, "one two.png")
    (tmp_path / "m a.mtl").write_text(f"newmtl a\nKd 0 0 0\nKa 1 0 0\nd 0.5\n{statement}\n")
    text = f"mtllib m a.mtl\n{TRIANGLE}{PLACES}usemtl a\nf 1/1 2/2 3/3\n"
    content = read(text, tmp_path)
    (surface,) = content.surfaces
    np.testing.assert_array_equal(surface.texture.pixels, pixels)
    np.testing.assert_allclose(surface.texture.uv, [place])
    assert surface.texture.wrap == (("clamp",) * 2 if "-clamp" in statement else ("repeat",) * 2)
    assert surface.base_color is None
    assert [("-mm, -t" in note) for note in content.notes] == [True] * ("-mm" in statement)


def test_faces_without_a_place_have_the_color_of_the_material(tmp_path: Path) -> None:
    write_image(tmp_path, "a.png")
    (tmp_path / "a.mtl").write_text("newmtl a\nKd 0.5 1 0.25\nmap_Kd a.png\nnewmtl b\nKd 0.5\n")
    text = (
        f"mtllib a.mtl\n{TRIANGLE}v 9 9 9\n{PLACES}usemtl a\nf 1/1 2/2 3/3\nf 1 2 4\nf 1/1 2/2 4\n"
        "usemtl b\nf 1 3 4\n"
    )
    bare, textured, plain = read(text, tmp_path).surfaces
    assert bare.base_color.tolist() == [0.5, 1, 0.25]
    assert bare.texture is None
    assert bare.vertices[bare.faces].tolist() == [[*CORNERS[:2], [9, 9, 9]]] * 2
    assert textured.base_color.tolist() == [0.5, 1, 0.25]
    assert textured.texture is not None
    assert plain.base_color.tolist() == [0.5, 0.5, 0.5]


def test_missing_files_and_materials_are_named(tmp_path: Path) -> None:
    text = (
        f"mtllib b.mtl a.mtl\n{TRIANGLE}{PLACES}usemtl m # wood\nf 1/1 2/2 3/3\nusemtl n\nf 1 2 3\n"
    )
    content = read(text, tmp_path)
    assert len(content.surfaces) == 1
    assert [note.split("'")[1] for note in content.notes] == ["b.mtl", "a.mtl"]
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 1 0 0\nmap_Kd no.png\n")
    content = read(text, tmp_path)
    assert all(s.base_color is None and s.texture is None for s in content.surfaces)
    assert content.notes == (
        "the material file 'b.mtl' is missing: no colors from it",
        "the texture 'no.png' is missing: no colors from it",
        "1 materials are not defined, such as 'n'",
    )


def test_faces_of_equal_materials_are_one_surface(tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_text("newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 1 0\nnewmtl c\nKd 1 0 0\n")
    faces = "".join(f"usemtl {name}\nf 1 2 3\n" for name in "abcba")
    red, green = read(f"mtllib a.mtl\n{TRIANGLE}{faces}", tmp_path).surfaces
    assert (red.base_color.tolist(), len(red.faces)) == ([1, 0, 0], 3)
    assert (green.base_color.tolist(), len(green.faces)) == ([0, 1, 0], 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v 0 0 0\nv 1 0\nv 0 1 0 5\nf 1 2 3\n", "fewer than three numbers"),
        ("v 0 0 0\nv\t\nv 0 1 0 5\nf 1 2 3\n", "fewer than three numbers"),
        ("v 1 2 3 4 5 6 7 8 9\n", "more than eight"),
        ("v 0 0 zero\n", "'zero' is not a number"),
        (f"{TRIANGLE}f 0 2 3\n", "vertex index 0: number"),
        (f"{TRIANGLE}f -4 -2 -1\n", "index -4.*export"),
        (f"{TRIANGLE}f 1 2 3 4\n", "outside its 3 vertices"),
        (f"{TRIANGLE}f 1.5 2 3\n", "is not a number"),
        (f"{TRIANGLE}f 1.5/1 2/1 3/1\n", "is not a number"),
        ("\0" * 5 + TRIANGLE, "text"),
        ("# nothing\n", "neither faces nor points"),
        ("surf 0 1 0 1 1 2 3 4\n", "neither faces nor points"),
    ],
)
def test_files_that_are_not_valid_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.obj").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.obj: .*{reason}"):
        read_shape(tmp_path / "x.obj", 9)


def test_free_form_surfaces_and_lines_are_counted(tmp_path: Path) -> None:
    notes = read(
        f"{TRIANGLE}f 1 2 3\nl 1 2\nl 2 3\ncurv 0 1 1 2\nsurf 0 1 0 1 1 2\n", tmp_path
    ).notes
    assert notes == (
        "2 free-form curves and surfaces are omitted: export polygons",
        "2 lines between vertices are omitted",
    )


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
        (obj, "MAX_MATERIALS", 2, "3 materials"),
        (textures, "MAX_TEXTURE_PIXELS", 191, "192 pixels"),
        (textures, "MAX_SIDECARS_BYTES", 200, "files have .* bytes"),
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


def test_textures_of_other_formats_are_named(tmp_path: Path) -> None:
    path = write_materials(tmp_path, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png", "PPM")
    (tmp_path / "a.mtl").write_text("newmtl m0\nKd 1 1 1\nmap_Kd 0.png\n")
    cloud = read_shape(path, 8)
    assert cloud.colors is None
    assert "'0.png' is none of PNG" in cloud.notes[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_beside_a_mesh_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.mtl")
    (tmp_path / "x.obj").write_text(f"mtllib m.mtl\n{TRIANGLE}usemtl a\nf 1 2 3\n")
    assert read_shape(tmp_path / "x.obj", 8).points.shape == (8, 3)


def test_meshes_read_nothing_outside_the_folder_above(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (250, 3, 7)).save(tmp_path / "other.png")
    (tmp_path / "other.mtl").write_text("newmtl a\nKd 0.98 0.01 0.02\n")
    inside = tmp_path / "shapes" / "chair"
    inside.mkdir(parents=True)
    corners = f"{TRIANGLE}vt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    (inside / "a.mtl").write_text("newmtl a\nmap_Kd ../../other.png\n")
    for library in ("a.mtl", "../../other.mtl", f"{tmp_path}/other.mtl"):
        (inside / "a.obj").write_text(f"mtllib {library}\n{corners}")
        assert read_shape(inside / "a.obj", 20).colors is None


def test_damaged_files_are_read_or_named(tmp_path: Path) -> None:
    sound = f"usemtl a\n{TRIANGLE}{PLACES}f 1/1 2/2 3/3 1/1\nf -3 -2 -1\n".encode()
    path = tmp_path / "x.obj"
    path.write_bytes(sound)
    assert_damage_is_read_or_named(path, lambda path: read_obj(path, ReadOptions()))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_of_other_encodings_are_read(encoding: str, tmp_path: Path) -> None:
    (surface,) = read(f"{TRIANGLE}f 1 2 3\n".encode(encoding), tmp_path).surfaces
    assert surface.vertices[surface.faces].tolist() == [CORNERS]


def test_vertices_that_no_face_uses_may_be_nan(tmp_path: Path) -> None:
    for word in ("nan", "-nan(ind)", "1.#QNAN", "-1.#IND", "inf"):
        read(f"{TRIANGLE}v 0 {word} 1 # a\nf 1 2 3\n", tmp_path)
        assert len(read_shape(tmp_path / "x.obj", 9).points) == 9


def test_names_of_material_files_may_have_escaped_blanks(tmp_path: Path) -> None:
    (tmp_path / "a b.mtl").write_text("newmtl a\nKd 1 0 0\n")
    text = f"mtllib no.mtl a\\ b.mtl\n{TRIANGLE}usemtl a\nf 1 2 3\n"
    assert read(text, tmp_path).surfaces[0].base_color.tolist() == [1, 0, 0]
