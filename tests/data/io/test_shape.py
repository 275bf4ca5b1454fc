"""Reading shapes of all formats: points, colors, normals, precision, damaged files."""

from pathlib import Path

import laspy
import numpy as np
import pytest
import trimesh
from PIL import Image

from recon.data.io.shape import READERS, read_shape

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
COLORS = np.random.default_rng(1).integers(0, 256, (50, 3)).astype(np.uint8)


def write_las(path: Path) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales = [1e-6] * 3
    las = laspy.LasData(header)
    las.x, las.y, las.z = POINTS.T.astype(float)
    las.red, las.green, las.blue = COLORS.T.astype(np.uint16)
    las.write(path)


def write_ply(path: Path, encoding: str) -> None:
    header = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    preamble = f"ply\nformat {encoding} 1.0\nelement vertex {len(POINTS)}\n{header}end_header\n"
    if encoding == "ascii":
        rows = zip(POINTS, NORMALS, COLORS, strict=True)
        body = "".join(
            " ".join(map(repr, map(float, (*p, *n)))) + f" {c[0]} {c[1]} {c[2]}\n"
            for p, n, c in rows
        )
        path.write_text(preamble + body)
        return
    fields = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    rows = np.zeros(len(POINTS), [*fields, *((name, "u1") for name in ("r", "g", "b"))])
    for i, name in enumerate(("x", "y", "z")):
        rows[name], rows[f"n{name}"], rows["rgb"[i]] = POINTS[:, i], NORMALS[:, i], COLORS[:, i]
    path.write_bytes(preamble.encode() + rows.tobytes())


CLOUD_WRITERS = {
    "ascii.ply": lambda path: write_ply(path, "ascii"),
    "binary.ply": lambda path: write_ply(path, "binary_little_endian"),
    "six.npy": lambda path: np.save(path, np.concatenate([POINTS, COLORS], 1)),
    "dictionary.npy": lambda path: np.save(
        path, np.array({"xyz": POINTS, "rgb": COLORS, "normals": NORMALS}, dtype=object)
    ),
    "named.npz": lambda path: np.savez(path, points=POINTS, colors=COLORS, normals=NORMALS),
    "nine.xyz": lambda path: np.savetxt(path, np.concatenate([POINTS, NORMALS, COLORS], 1)),
    "colors.xyz": lambda path: np.savetxt(path, np.concatenate([POINTS, COLORS], 1)),
    "normals.xyz": lambda path: np.savetxt(path, np.concatenate([POINTS, NORMALS], 1)),
    "three.xyz": lambda path: np.savetxt(path, POINTS, delimiter=","),
    "colors.glb": lambda path: trimesh.PointCloud(POINTS, colors=COLORS).export(path),
    "colors.las": write_las,
    "colors.laz": write_las,
}


@pytest.mark.parametrize("name", CLOUD_WRITERS)
def test_clouds_keep_points_colors_and_normals(name: str, tmp_path: Path) -> None:
    CLOUD_WRITERS[name](tmp_path / name)
    cloud = read_shape(tmp_path / name, count=7)
    assert np.allclose(cloud.points, POINTS, atol=1e-6)
    has_colors = name not in ("normals.xyz", "three.xyz")
    has_normals = name.endswith(".ply") or name in (
        "dictionary.npy",
        "named.npz",
        "nine.xyz",
        "normals.xyz",
    )
    assert (cloud.colors is not None, cloud.normals is not None) == (has_colors, has_normals)
    if cloud.colors is not None:
        assert np.array_equal(cloud.colors, COLORS)
    if cloud.normals is not None:
        assert np.allclose(cloud.normals, NORMALS, atol=1e-6)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".stl", ".glb"])
def test_meshes_are_sampled_by_area(suffix: str, tmp_path: Path) -> None:
    # One face at z = 0, and one at z = 1 with three times its area.
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 1], [0, 1, 1]]
    path = tmp_path / f"faces{suffix}"
    trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], process=False).export(path)
    cloud = read_shape(path, count=4000)
    assert cloud.points.shape == (4000, 3)
    assert np.allclose(cloud.points[:, 2].round(), cloud.points[:, 2], atol=1e-6)
    assert cloud.points[:, 2].mean() == pytest.approx(0.75, abs=0.03)
    assert np.allclose(cloud.normals, [0, 0, 1], atol=1e-6)
    lower = cloud.points[cloud.points[:, 2] < 0.5, :2]
    assert lower.mean(0) == pytest.approx([1 / 3, 1 / 3], abs=0.03)
    assert np.array_equal(read_shape(path, count=4000).points, cloud.points)


def test_scene_transforms_are_applied(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for shift in (0, 5):
        scene.add_geometry(
            trimesh.creation.box(),
            transform=trimesh.transformations.translation_matrix([shift, 0, 0]),
        )
    scene.export(tmp_path / "scene.glb")
    points = read_shape(tmp_path / "scene.glb", count=2000).points
    assert points.min(0) == pytest.approx([-0.5, -0.5, -0.5], abs=0.01)
    assert points.max(0) == pytest.approx([5.5, 0.5, 0.5], abs=0.01)
    assert (points[:, 0] > 2.5).mean() == pytest.approx(0.5, abs=0.05)


def test_meshes_keep_colors_of_textures_materials_and_vertices(tmp_path: Path) -> None:
    triangle = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    Image.new("RGB", (4, 4), (10, 200, 30)).save(tmp_path / "texture.png")
    for name, material, color in (
        ("texture", "map_Kd texture.png", (10, 200, 30)),
        ("plain", "Kd 1 0 0", (255, 0, 0)),
    ):
        (tmp_path / f"{name}.mtl").write_text(f"newmtl a\n{material}\n")
        (tmp_path / f"{name}.obj").write_text(f"mtllib {name}.mtl\n{triangle}")
        assert set(map(tuple, read_shape(tmp_path / f"{name}.obj", 20).colors.tolist())) == {color}
    box = trimesh.creation.box()
    box.visual.vertex_colors = [7, 8, 9, 255]
    box.export(tmp_path / "box.ply")
    assert set(map(tuple, read_shape(tmp_path / "box.ply", 20).colors.tolist())) == {(7, 8, 9)}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_points_take_colors_of_glb_textures(mode: str, tmp_path: Path) -> None:
    box = trimesh.creation.box()
    image = Image.new("RGB", (8, 8), (250, 250, 250)).convert(mode)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    uv = np.random.default_rng(0).uniform(size=(8, 2))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    box.export(tmp_path / "t.glb")
    colors = read_shape(tmp_path / "t.glb", 30).colors
    assert colors.min() >= (200 if mode == "P" else 248)  # a palette has few colors
    box.visual = trimesh.visual.TextureVisuals(material=material)  # no texture coordinates
    box.export(tmp_path / "t.glb")
    assert read_shape(tmp_path / "t.glb", 30).points.shape == (30, 3)


def write_binary_ply(
    tmp_path: Path, properties: str, vertices: bytes, faces: str, body: bytes
) -> Path:
    path = tmp_path / "binary.ply"
    path.write_bytes(b"ply\nformat binary_little_endian 1.0\n" + (properties + faces).encode()
                     + b"end_header\n" + vertices + body)  # fmt: skip
    return path


XYZ = "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
FACES = "element face {}\nproperty list uchar int vertex_indices\n"


def encode_polygon(*corners: int) -> bytes:
    return bytes([len(corners)]) + np.array(corners, "<i4").tobytes()


def test_binary_ply_with_triangles_and_quads(tmp_path: Path) -> None:
    body = encode_polygon(0, 1, 2, 3) + encode_polygon(0, 1, 2)
    path = write_binary_ply(tmp_path, XYZ, SQUARE.tobytes(), FACES.format(2), body)
    cloud = read_shape(path, 500)
    assert np.allclose(cloud.normals, [0, 0, 1])
    assert cloud.points.max(0) == pytest.approx([1, 1, 0], abs=0.05)
    assert (cloud.points[:, 0] < cloud.points[:, 1]).mean() == pytest.approx(1 / 3, abs=0.07)


@pytest.mark.parametrize("corner", [-1, 4])
def test_ply_faces_with_invalid_vertices_raise_value_error(corner: int, tmp_path: Path) -> None:
    body = encode_polygon(0, 1, corner)
    path = write_binary_ply(tmp_path, XYZ, SQUARE.tobytes(), FACES.format(1), body)
    with pytest.raises(ValueError, match=r"binary.ply: a face uses a vertex index outside"):
        read_shape(path)


def test_ply_truncated_before_its_faces_raises_value_error(tmp_path: Path) -> None:
    path = write_binary_ply(tmp_path, XYZ, SQUARE.tobytes(), FACES.format(3), b"")
    with pytest.raises(ValueError, match=r"binary.ply: not a readable shape"):
        read_shape(path)


@pytest.mark.parametrize(
    ("ply_type", "dtype", "scale"), [("float", "<f4", 1), ("ushort", "<u2", 257)]
)
def test_ply_colors_of_float_and_ushort(
    ply_type: str, dtype: str, scale: int, tmp_path: Path
) -> None:
    names = ("red", "green", "blue")
    properties = XYZ.replace("vertex 4", "vertex 50")
    properties += "".join(f"property {ply_type} {name}\n" for name in names)
    rows = np.zeros(50, [("p", "<f4", 3), ("c", dtype, 3)])
    rows["p"], rows["c"] = POINTS, COLORS.astype(int) * scale
    path = write_binary_ply(tmp_path, properties, rows.tobytes(), "", b"")
    colors = read_shape(path).colors
    expected = COLORS if ply_type == "float" else COLORS / 255
    assert np.allclose(colors, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,5 2,25 3,75\n1,5 2,0 3,0\n", "decimal commas"),
        ("1,5;2,25;3,75\n", "decimal commas"),
    ],
)
def test_ambiguous_numbers_and_shapes_raise_value_error(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"a.xyz: .*{message}"):
        read_shape(path)
    path.write_bytes("12 3 4\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"a.xyz: .*UTF-16"):
        read_shape(path)
    np.save(tmp_path / "t.npy", POINTS.T)
    with pytest.raises(ValueError, match=r"t.npy: has shape \(3, 50\), expected .*: transpose it"):
        read_shape(tmp_path / "t.npy")


def test_columns_are_found_by_name_or_position(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text("//X Y Z Intensity R G B\n2\n1 2 3 -40 7 8 9\n4 5 6 -41 10 11 12\n")
    named = read_shape(path)
    path.write_text("1 2 3 -40 7 8 9\n4 5 6 -41 10 11 12\n")
    for cloud in (named, read_shape(path)):
        assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
        assert cloud.colors.tolist() == [[7, 8, 9], [10, 11, 12]]
    path.write_text("r g b z y x\n7 8 9 3 2 1\n")
    assert read_shape(path).points.tolist() == [[1, 2, 3]]


def test_truncated_las_files_raise_value_error(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las")
    content = (tmp_path / "a.las").read_bytes()
    (tmp_path / "a.las").write_bytes(content[: len(content) - 34 * 10])
    with pytest.raises(ValueError, match=r"a.las: not a readable LAS file"):
        read_shape(tmp_path / "a.las")


def test_large_tiles_and_millimeters_keep_their_precision(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).uniform(0, 1000, (2000, 3)) + [500_000, 5_400_000, 0]
    np.save(tmp_path / "tile.npy", tile)
    points = read_shape(tmp_path / "tile.npy").points
    assert np.allclose(points - points[0], tile - tile[0], atol=1e-3)
    np.save(tmp_path / "mm.npy", (tile * 1000).astype(np.int64))
    points = read_shape(tmp_path / "mm.npy").points
    assert np.allclose(points - points[0], ((tile - tile[0]) * 1000), atol=2)


def test_non_finite_normals_become_zero(tmp_path: Path) -> None:
    normals = NORMALS.copy()
    normals[3] = np.nan
    np.savez(tmp_path / "a.npz", points=POINTS, normals=normals)
    result = read_shape(tmp_path / "a.npz").normals
    assert result[3].tolist() == [0, 0, 0]
    assert np.array_equal(result[4:], NORMALS[4:])


def test_coordinates_far_from_the_origin_keep_their_precision(tmp_path: Path) -> None:
    far = POINTS.astype(np.float64) + [500_000, 4_500_000, 0]
    np.save(tmp_path / "far.npy", far)
    points = read_shape(tmp_path / "far.npy").points
    assert np.allclose(np.diff(points, axis=0), np.diff(far, axis=0), atol=1e-6)
    near = POINTS.astype(np.float64) + 100
    np.save(tmp_path / "near.npy", near)
    assert np.array_equal(read_shape(tmp_path / "near.npy").points, near.astype(np.float32))


def build_damaged_files() -> dict[str, bytes]:
    box = trimesh.creation.box()
    exports = {f"cut{e}": box.export(file_type=e[1:]) for e in (".ply", ".off", ".stl", ".glb")}
    truncated = {
        name: (content if isinstance(content, bytes) else content.encode())[:-40]
        for name, content in exports.items()
    }
    text_ply = box.export(file_type="ply", encoding="ascii")
    truncated["text.ply"] = text_ply.rstrip().rpartition(b"\n")[0]
    garbage = {f"garbage{suffix}": b"garbage \x00\xff" * 30 for suffix in READERS}
    return {
        **truncated,
        **garbage,
        **{f"empty{suffix}": b"" for suffix in READERS},
        "no_area.off": b"OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n",
        "not_finite.off": b"OFF\n3 1 0\n0 0 0\nnan 0 0\n0 1 0\n3 0 1 2\n",
        "foreign_vertex.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
        "comments_only.obj": b"# nothing here\n",
        "huge.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\n"
        b"property float x\nproperty float y\nproperty float z\nend_header\nxxxx",
        "huge.stl": b"\0" * 80 + b"\xff\xff\xff\xff" + b"x" * 100,
        "words.xyz": b"1 2 3\n4 5 six\n",
        "two.xyz": b"1 2\n3 4\n",
    }


@pytest.mark.parametrize("name", sorted(build_damaged_files()))
def test_damaged_files_raise_value_error_with_their_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(build_damaged_files()[name])
    with pytest.raises(ValueError, match=rf"{name}\b") as caught:
        read_shape(path)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_suffixes_and_arrays_raise_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.blend: unknown file extension: .* .glb, .gltf, "):
        read_shape(tmp_path / "a.blend")
    np.savez(tmp_path / "a.npz", stuff=POINTS, other=POINTS)
    with pytest.raises(
        ValueError, match=r"a.npz: has the arrays \['other', 'stuff'\], none is called"
    ):
        read_shape(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", points=POINTS, colors=COLORS[:9])
    with pytest.raises(ValueError, match=r"a.npz: has colors of shape \(9, 3\) for 50 points"):
        read_shape(tmp_path / "a.npz")
