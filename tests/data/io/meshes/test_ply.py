"""PLY: headers, binary data and text, polygons, strips, colors, textures and other properties."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData, PlyElement

from damage import assert_damage_is_read_or_named
from recon.data.io.meshes.ply import read_ply
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import read_shape

XYZ = "property float x\nproperty float y\nproperty float z\n"
FACES = "property list uchar int vertex_indices\n"
CORNERS = np.eye(3, dtype="<f4")
HEADER = f"ply\nformat binary_little_endian 1.0\ncomment Gr\u00f6\u00dfe\nelement vertex 3\n{XYZ}"
SQUARE = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], "<f4")


def write(folder: Path, header: str, body: bytes | str, end: str = "\n") -> Path:
    path = folder / "a.ply"
    kind = "ascii" if isinstance(body, str) else "binary_little_endian"
    head = f"ply\nformat {kind} 1.0\n{header}end_header\n".replace("\n", end)
    path.write_bytes(head.encode() + (body.encode() if isinstance(body, str) else body))
    return path


def read(folder: Path, header: str, body: bytes | str, end: str = "\n") -> MeshContent:
    return read_ply(write(folder, header, body, end), ReadOptions())


def polygon(*corners: int) -> bytes:
    return struct.pack(f"<B{len(corners)}i", len(corners), *corners)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", [0.0, struct.unpack("<f", b"\n\n\n\n")[0]])
def test_header_lines_may_end_in_any_way(end: str, first: float, tmp_path: Path) -> None:
    points = np.array([[first, 2, 3]], "<f4")
    table = read(tmp_path, f"comment a\nelement vertex 1\n{XYZ}", points.tobytes(), end).points
    np.testing.assert_array_equal(table.points, points)


def test_header_lines_may_end_in_several_ways(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(
        b"ply\r\nformat binary_big_endian 1.0\nobj_info x\rcomment Gr\xf6\xdfe\nelement vertex 1\n"
        + XYZ.encode()
        + b"end_header\r\n"
        + struct.pack(">3f", 1, 2, 3)
    )
    points = read_ply(path, ReadOptions()).points.points
    assert points.tolist() == [[1, 2, 3]]
    assert points.dtype == np.float32


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n  \n"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin1"])
def test_comments_and_blank_ends_of_ply_files_are_allowed(
    encoding: str, end: str, tmp_path: Path
) -> None:
    path, corners = tmp_path / "a.ply", CORNERS.tobytes()
    path.write_bytes(f"{HEADER}end_header\n".encode(encoding) + corners + end.encode())
    np.testing.assert_array_equal(read_shape(path, 20).points, CORNERS)
    faces = f"{HEADER}element face 1\n{FACES}end_header\n".encode(encoding)
    path.write_bytes(faces + corners + struct.pack("<B3i", 3, 0, 1, 2) + end.encode())
    assert len(read_shape(path, 20).points) == 20
    path.write_bytes(f"{HEADER}end_header\n".encode(encoding) + corners + b"\n.")
    with pytest.raises(ValueError, match=r"a\.ply: .* bytes"):
        read_shape(path, 20)


def test_a_list_that_is_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    head = f"{HEADER}element face 2\n{FACES}end_header\n".encode()
    faces = struct.pack("<B3i", 3, 0, 1, 2), struct.pack("<B3i", 9, 0, 1, 2)
    path.write_bytes(head + CORNERS.tobytes() + b"".join(faces))
    with pytest.raises(ValueError, match=r"a\.ply: not a readable shape"):
        read_shape(path, 20)


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("sizes", [[3, 3, 3], [4, 3, 5, 3], [4, 4]])
def test_faces_that_plyfile_wrote_are_read(order: str, sizes: list[int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 9)[:8]
    vertex = np.zeros(8, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("red", "u1"), ("green", "u1"),
                          ("blue", "u1"), ("quality", "f4")])  # fmt: skip
    vertex["x"], vertex["y"] = np.cos(angles) + 5e5, np.sin(angles)
    for name in ("red", "green", "blue"):
        vertex[name] = rng.integers(0, 256, 8)
    face = np.empty(len(sizes), [("flags", "i4"), ("vertex_indices", "O"), ("weight", "f8")])
    for row, size in enumerate(sizes):
        face[row] = (row, np.sort(rng.permutation(8)[:size]).astype("i4"), 0.5)
    edge = np.array([(0, 1)], [("vertex1", "i4"), ("vertex2", "i4")])
    elements = [
        PlyElement.describe(vertex, "vertex"),
        PlyElement.describe(face, "face", len_types={"vertex_indices": "u4"}),
        PlyElement.describe(edge, "edge"),
    ]
    PlyData(elements, text=order == "=", byte_order=order).write(tmp_path / "a.ply")
    (surface,) = read_ply(tmp_path / "a.ply", ReadOptions()).surfaces
    np.testing.assert_array_equal(surface.vertices[:, 0], vertex["x"])
    expected = [
        list(p[[0, i, i + 1]]) for p in face["vertex_indices"] for i in range(1, len(p) - 1)
    ]
    assert surface.faces.tolist() == expected
    assert surface.vertex_colors.dtype == np.uint8
    np.testing.assert_array_equal(surface.vertex_colors[:, 1], vertex["green"])


def test_concave_polygons_are_split_inside(tmp_path: Path) -> None:
    outline = [(1, 1), (1, 4), (0, 4), (0, 0), (4, 0), (4, 4), (3, 4), (3, 1)]
    vertices = np.array([(x, y, 0) for x, y in outline], "<f4").tobytes()
    header = f"element vertex 8\n{XYZ}element face 1\n{FACES}"
    cloud = read_shape(write(tmp_path, header, vertices + polygon(2, 3, 4, 5, 6, 7, 0, 1)), 2000)
    x, y = cloud.points[:, 0], cloud.points[:, 1]
    assert ((y <= 1) | (x <= 1) | (x >= 3)).all()
    assert (cloud.normals == (0, 0, 1)).all()


def test_triangle_strips_restart_and_alternate(tmp_path: Path) -> None:
    header = f"element vertex 4\n{XYZ}element tristrips 1\nproperty list int int vertex_indices\n"
    strip = np.array([9, 0, 1, 3, 2, -1, 0, 1, 2, 2], "<i4").tobytes()
    (surface,) = read(tmp_path, header, SQUARE.tobytes() + strip).surfaces
    assert surface.faces.tolist() == [[0, 1, 3], [3, 1, 2], [0, 1, 2]]
    text = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n9 0 1 3 2 -1 0 1 2 2\n"
    assert read(tmp_path, header, text).surfaces[0].faces.tolist() == surface.faces.tolist()


@pytest.mark.parametrize(
    "names", ["red green blue", "r g b", "Diffuse_Red diffuse_green diffuse_blue"]
)
@pytest.mark.parametrize(("kind", "dtype", "scale"), [
    ("uchar", "u1", 1), ("ushort", "<u2", 257), ("float", "<f4", 1 / 255),
    ("double", "<f8", 1 / 255),
])  # fmt: skip
def test_colors_of_all_names_and_types_are_read(
    names: str, kind: str, dtype: str, scale: float, tmp_path: Path
) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (3, 3))
    rows = np.zeros(3, [("p", "<f4", 3), ("c", dtype, 3)])
    rows["p"], rows["c"] = CORNERS, colors * scale
    header = f"element vertex 3\n{XYZ}" + "".join(f"property {kind} {n}\n" for n in names.split())
    cloud = read_shape(write(tmp_path, header, rows.tobytes()))
    got = cloud.colors if cloud.colors.dtype == np.uint8 else cloud.colors * 255
    np.testing.assert_allclose(got, colors, atol=1e-3)


def test_colors_of_faces_follow_their_triangles(tmp_path: Path) -> None:
    header = f"element vertex 4\n{XYZ}element face 2\n{FACES}" + "".join(
        f"property uchar {name}\n" for name in ("red", "green", "blue")
    )
    faces = polygon(0, 1, 2, 3) + bytes([9, 8, 7]) + polygon(0, 1, 2) + bytes([1, 2, 3])
    (surface,) = read(tmp_path, header, SQUARE.tobytes() + faces).surfaces
    assert surface.face_colors.tolist() == [[9, 8, 7], [9, 8, 7], [1, 2, 3]]


def test_other_properties_of_points_are_kept_by_name(tmp_path: Path) -> None:
    rows = np.zeros(2, [("p", "<f8", 3), ("i", "<u2"), ("l", "i1"), ("n", "<f4", 3)])
    rows["p"], rows["i"], rows["l"], rows["n"] = [(1, 2, 3), (4e6, 5e6, 6.123)], (7, 8), (-1, 2), 1
    header = f"element vertex 2\n{XYZ}".replace("float", "double")
    header += "property ushort intensity\nproperty char scalar_Label\n"
    header += "property float nx\nproperty float ny\nproperty float nz\n"
    table = read(tmp_path, header, rows.tobytes()).points
    np.testing.assert_array_equal(table.points, rows["p"])
    assert {name: values.tolist() for name, values in table.extra.items()} == {
        "intensity": [7, 8], "scalar_Label": [-1, 2],
    }  # fmt: skip
    assert table.normals.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_gaussian_splats_have_colors_and_no_normals(tmp_path: Path) -> None:
    names = ["nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "f_rest_0", "opacity"]
    names += ["scale_0", "rot_0"]
    header = f"element vertex 2\n{XYZ}" + "".join(f"property float {name}\n" for name in names)
    rows = np.zeros((2, 13), "<f4")
    rows[:, :3], rows[1, 6:9] = [(1, 2, 3), (4, 5, 6)], (1, -1, 9)
    cloud = read_shape(write(tmp_path, header, rows.tobytes()))
    assert cloud.normals is None
    expected = [[0.5, 0.5, 0.5], [0.5 + 0.28209479, 0.5 - 0.28209479, 1]]
    np.testing.assert_allclose(cloud.colors, expected, atol=1e-6)
    assert any("Gaussian" in note for note in cloud.notes)
    assert any("zero" in note for note in cloud.notes)


def write_image(folder: Path, name: str, color: tuple[int, int, int]) -> None:
    Image.new("RGB", (2, 2), color).save(folder / name)


@pytest.mark.parametrize("names", [("s", "t"), ("u", "v"), ("texture_u", "texture_v")])
def test_textures_are_placed_by_vertices(names: tuple[str, str], tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one two.png")
    header = f"comment TextureFile one two.png\nelement vertex 4\n{XYZ}"
    header += f"property float {names[0]}\nproperty float {names[1]}\nelement face 1\n{FACES}"
    for place, color in (((0.25, 0.75), (255, 0, 0)), ((0.25, 0.25), (0, 0, 255))):
        rows = np.concatenate([SQUARE, np.tile(np.array(place, "<f4"), (4, 1))], 1)
        path = write(tmp_path, header, rows.tobytes() + polygon(0, 1, 2, 3))
        assert (read_shape(path, 9).colors == color).all()
    (tmp_path / "one two.png").unlink()
    cloud = read_shape(path, 9)
    assert cloud.colors is None
    assert cloud.notes == ("the texture 'one two.png' is missing: no colors from it",)


def test_textures_are_placed_and_numbered_by_faces(tmp_path: Path) -> None:
    write_image(tmp_path, "red.png", (255, 0, 0))
    write_image(tmp_path, "blue.png", (0, 0, 255))
    header = f"comment TextureFile red.png\ncomment TextureFile blue.png\nelement vertex 4\n{XYZ}"
    header += f"element face 3\n{FACES}property list uchar float texcoord\nproperty int texnumber\n"

    def face(number: int, *corners: int) -> bytes:
        uv = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8][: 2 * len(corners) if number >= 0 else 0]
        place = struct.pack(f"<B{len(uv)}f", len(uv), *uv)
        return polygon(*corners) + place + struct.pack("<i", number)

    faces = face(1, 0, 1, 2, 3) + face(-1, 0, 1, 2) + face(0, 1, 2, 3)
    content = read(tmp_path, header, SQUARE.tobytes() + faces)
    none, red, blue = content.surfaces
    assert none.texture is None
    assert (red.texture.pixels == (255, 0, 0)).all()
    assert (blue.texture.pixels == (0, 0, 255)).all()
    assert blue.vertices[blue.faces].tolist() == SQUARE[[[0, 1, 2], [0, 2, 3]]].tolist()
    expected = [[[0.1, 0.8], [0.3, 0.6], [0.5, 0.4]], [[0.1, 0.8], [0.5, 0.4], [0.7, 0.2]]]
    np.testing.assert_allclose(blue.texture.uv, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ("element vertex 900\nproperty float x\n", "0\n", "900"),
        ("element nothing 5\nelement vertex 1\nproperty float x\n", "0 0 0 0 0 0\n", "'nothing'"),
        ("element vertex -5\nproperty float x\n", "0\n", "-5"),
        (f"element vertex 5\n{XYZ}", CORNERS.tobytes(), "60 bytes.*36"),
        (f"element vertex 3\n{XYZ}", CORNERS.tobytes() + b"0000", r"\b4 bytes"),
        (f"element vertex 1\n{XYZ}", "0 0 0\n1 1 1\n2 2 2\n", "6 numbers follow"),
        (f"element vertex 1\n{XYZ}", "0 0 zero\n", "'zero' is not a number"),
        (f"element point 1\n{XYZ}", "0 0 0\n", "point"),
        ("element vertex 1\nproperty float x\n", "0\n", "x, y and z"),
        ("element vertex 1\nproperty real x\n", "0\n", "property real x"),
        ("element vertex 1\nproperty list float int x\n", "0\n", "length of 'x'"),
        (f"element vertex 1\n{XYZ}element face 1\nproperty list uchar int corners\n",
         "0 0 0\n3 0 0 0\n", "vertex_indices"),
        (f"element vertex 3\n{XYZ}element face 2\n{FACES}",
         CORNERS.tobytes() + polygon(0, 1, 2) + polygon(0, 1, 2)[:1] + b"\0" * 9, "ends inside"),
        (f"element vertex 3\n{XYZ}element face 2\n{FACES}",
         CORNERS.tobytes() + polygon(0, 1, 2) + b"\xff" + polygon(0, 1, 2)[1:], "ends inside"),
        (f"element vertex 1\n{XYZ}element face 1\n{FACES}", "0 0 0\n-1\n", "-1 numbers"),
        (f"element vertex 1\n{XYZ}element face 2\n{FACES}", "0 0 0\n1 0\n2 0\n", "ends inside"),
        (f"element vertex 3\n{XYZ}element face 1\n{FACES}",
         CORNERS.tobytes() + polygon(0, 1, 2, 7), "outside its 3 vertices"),
    ],
)  # fmt: skip
def test_files_that_do_not_hold_what_they_declare_are_refused(
    header: str, body: bytes | str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"a\.ply: .*{reason}"):
        read(tmp_path, header, body)
    (tmp_path / "a.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.raises(ValueError, match=r"a\.ply: .*header"):
        read_ply(tmp_path / "a.ply", ReadOptions())


def test_damaged_files_are_read_or_named(tmp_path: Path) -> None:
    header = f"element vertex 3\n{XYZ}element face 2\n{FACES}"
    faces = polygon(0, 1, 2) + polygon(0, 1, 2, 0)
    path = write(tmp_path, header, CORNERS.tobytes() + faces)
    assert_damage_is_read_or_named(path, lambda path: read_ply(path, ReadOptions()))
