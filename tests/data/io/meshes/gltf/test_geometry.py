"""Vertices and triangles of glTF scenes: arrays, modes, nodes, instances, skins and morphing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gltf_files import FACES, SQUARE, Gltf, write_square
from recon.data.io.meshes.gltf import container, nodes, reader
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.shape import read_content, read_shape


def read(path: Path) -> MeshContent:
    content = read_content(path)
    assert isinstance(content, MeshContent)
    return content


def corners(content: MeshContent) -> np.ndarray:
    """The corners of all triangles, (f, 3, 3)."""
    return np.concatenate([s.vertices[s.faces] for s in content.surfaces])


def normals(content: MeshContent) -> np.ndarray:
    triangles = corners(content)
    return np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])


def write(path: Path, gltf: Gltf, **top: Any) -> MeshContent:
    return read(gltf.write(path / "a.glb", **top))


@pytest.mark.parametrize(
    ("dtype", "is_normalized", "scale"),
    [
        ("i1", False, 1), ("u1", False, 1), ("<i2", False, 1), ("<u2", False, 1),
        ("i1", True, 127), ("u1", True, 255), ("<i2", True, 32767), ("<u2", True, 65535),
        ("<f4", False, 1),
    ],
)  # fmt: skip
def test_positions_of_all_types(
    dtype: str, is_normalized: bool, scale: int, tmp_path: Path
) -> None:
    values = np.array([[0, 0, 0], [100, 1, 0], [3, 120, 7]])
    gltf = Gltf(extensionsRequired=["KHR_mesh_quantization"])
    position = gltf.array(values, dtype, **({"normalized": True} if is_normalized else {}))
    gltf.mesh({"attributes": {"POSITION": position}})
    triangle = corners(write(tmp_path, gltf))
    np.testing.assert_allclose(triangle[0], values / scale, rtol=1e-7)


def test_the_lowest_signed_integer_is_minus_one(tmp_path: Path) -> None:
    gltf = Gltf()
    position = gltf.array([[-128, 127, 0], [-127, 0, 0], [0, 1, 0]], "i1", normalized=True)
    gltf.mesh({"attributes": {"POSITION": position}})
    np.testing.assert_array_equal(corners(write(tmp_path, gltf))[0, :2, 0], [-1, -1])


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4"])
def test_indices_of_all_types(dtype: str, tmp_path: Path) -> None:
    gltf = Gltf()
    indices = gltf.array([2, 0, 1, 2, 3, 0, 1], dtype)  # the seventh belongs to no triangle
    gltf.mesh({"attributes": {"POSITION": gltf.array(SQUARE)}, "indices": indices})
    assert write(tmp_path, gltf).surfaces[0].faces.tolist() == [[2, 0, 1], [2, 3, 0]]


def test_interleaved_and_shifted_arrays(tmp_path: Path) -> None:
    gltf = Gltf()
    rows = np.zeros((4, 8), "<f4")
    rows[:, 2:5], rows[:, :2], rows[:, 5:] = SQUARE, 7, 9
    view = gltf.view(bytes(12) + rows.tobytes(), byteStride=32)
    position = gltf.accessor("f4", "VEC3", 4, bufferView=view, byteOffset=12 + 8)
    gltf.mesh({"attributes": {"POSITION": position}, "indices": gltf.array(FACES, "<u2")})
    np.testing.assert_array_equal(write(tmp_path, gltf).surfaces[0].vertices, SQUARE)


@pytest.mark.parametrize("has_base", [True, False])
def test_sparse_accessors(has_base: bool, tmp_path: Path) -> None:
    gltf = Gltf()
    sparse = {
        "count": 2,
        "indices": {"bufferView": gltf.view(b"\1\0\0\0\3\0\0\0"), "componentType": 5125},
        "values": {"bufferView": gltf.view(np.array([[5, 6, 7], [8, 9, 1]], "<f4").tobytes())},
    }
    base = {"bufferView": gltf.view(SQUARE.tobytes())} if has_base else {}
    position = gltf.accessor("f4", "VEC3", 4, sparse=sparse, **base)
    gltf.mesh({"attributes": {"POSITION": position}, "indices": gltf.array(FACES, "<u2")})
    expected = SQUARE.copy() if has_base else np.zeros((4, 3))
    expected[[1, 3]] = [[5, 6, 7], [8, 9, 1]]
    np.testing.assert_array_equal(write(tmp_path, gltf).surfaces[0].vertices, expected)
    sparse["indices"] = {"bufferView": gltf.view(b"\1\0\0\0\4\0\0\0"), "componentType": 5125}
    with pytest.raises(ValueError, match=r"a\.glb: .*row 4 of 4"):
        write(tmp_path, gltf)


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize(
    ("mode", "order", "faces"),
    [
        (4, [0, 1, 2, 0, 2, 3], [[0, 1, 2], [0, 2, 3]]),
        (5, [0, 1, 3, 2], [[0, 1, 3], [1, 2, 3]]),
        (5, [0, 1], []),
        (6, [0, 1, 2, 3], [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_triangle_modes(
    mode: int, order: list[int], faces: list[list[int]], is_indexed: bool, tmp_path: Path
) -> None:
    gltf = Gltf()
    primitive = {"attributes": {"POSITION": gltf.array(SQUARE)}, "mode": mode}
    if is_indexed:
        primitive["indices"] = gltf.array(np.array(order, "u1"), "u1")
    else:
        table = SQUARE[order].reshape(-1, 3)
        primitive["attributes"] = {"POSITION": gltf.array(table)}
    gltf.mesh(primitive)
    content = write(tmp_path, gltf)
    if not faces:
        assert not content.surfaces
        return
    found = corners(content)
    turns = [np.roll(found, turn, 1) for turn in range(3)]
    assert any(np.array_equal(turn, SQUARE[faces]) for turn in turns)
    assert (normals(content)[:, 2] > 0).all()


def test_points_and_lines(tmp_path: Path) -> None:
    gltf = Gltf()
    position = {"POSITION": gltf.array(SQUARE), "NORMAL": gltf.array(SQUARE + [0, 0, 1])}
    colors = gltf.array(np.arange(16).reshape(4, 4), "u1", normalized=True)
    points = {"attributes": {**position, "COLOR_0": colors}, "mode": 0}
    lines = {"attributes": position, "mode": 3}
    gltf.mesh(points, lines)
    content = write(tmp_path, gltf, nodes=[{"mesh": 0, "scale": [2, -1, 1]}])
    assert content.points is not None
    np.testing.assert_array_equal(content.points.points, SQUARE * [2, -1, 1])
    np.testing.assert_array_equal(content.points.colors, np.arange(16).reshape(4, 4)[:, :3])
    expected = (SQUARE + [0, 0, 1]) / [2, -1, 1]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(content.points.normals, expected, atol=1e-6)
    assert content.notes == ("1 primitives are lines: omitted",)
    gltf.mesh(gltf.square(), {**points, "indices": gltf.array([2, 0, 2], "u1")})
    content = write(tmp_path, gltf, nodes=[{"mesh": 0}, {"mesh": 1}], scenes=[{"nodes": [0, 1]}])
    assert len(content.surfaces) == 1
    assert content.points is None
    assert "2 clouds of points beside the faces: omitted" in content.notes
    gltf.json["meshes"][1]["primitives"].pop(0)
    content = write(tmp_path, gltf, nodes=[{"mesh": 1}])
    assert content.points is not None
    np.testing.assert_array_equal(content.points.points, SQUARE[[0, 2]])


QUARTER_TURN = [0, 0, 0.5**0.5, 0.5**0.5]  # about z


@pytest.mark.parametrize(
    ("node", "center", "z"),
    [
        ({"translation": [1, 2, 3]}, [1.5, 2.5, 3], 1),
        ({"rotation": QUARTER_TURN}, [-0.5, 0.5, 0], 1),
        ({"scale": [2, 4, 1], "translation": [1, 0, 0]}, [2, 2, 0], 1),
        ({"scale": [2, 1, 1], "rotation": QUARTER_TURN, "translation": [9, 0, 0]}, [8.5, 1, 0], 1),
        ({"scale": [-1, 1, 1]}, [-0.5, 0.5, 0], 1),
        ({"scale": [1, 1, -1]}, [0.5, 0.5, 0], -1),
        ({"matrix": [0, 2, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1]}, [4.5, 7, 7], 1),
    ],
)
def test_nodes_place_meshes(
    node: dict[str, Any], center: list[float], z: int, tmp_path: Path
) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    content = write(tmp_path, gltf, nodes=[{"mesh": 0, **node}])
    np.testing.assert_allclose(corners(content).mean((0, 1)) * 1, center, atol=0.2)
    np.testing.assert_allclose(content.surfaces[0].vertices.mean(0), center, atol=1e-12)
    # A mirrored mesh keeps its outside, so its normals follow the mirror.
    assert (np.sign(normals(content)[:, 2]) == z).all()


def test_children_are_placed_by_their_parents(tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    tree = [
        {"children": [1], "scale": [2, 2, 2]},
        {"children": [2], "translation": [1, 0, 0]},
        {"mesh": 0, "rotation": QUARTER_TURN},
    ]
    content = write(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [0]}])
    np.testing.assert_allclose(content.surfaces[0].vertices.mean(0), [1, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("top", "places", "notes"),
    [
        ({"scene": 1}, [10], ["2 scenes: only scene 1", "1 nodes with meshes are not"]),
        ({}, [0], ["2 scenes: only scene 0", "1 nodes with meshes are not"]),
        ({"scenes": []}, [0, 10], []),
    ],
)
def test_the_default_scene_is_read(
    top: dict[str, Any], places: list[int], notes: list[str], tmp_path: Path
) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    tree = [{"mesh": 0}, {"mesh": 0, "translation": [10, 0, 0]}]
    top = {"scenes": [{"nodes": [0]}, {"nodes": [1]}], **top}
    content = write(tmp_path, gltf, nodes=tree, **top)
    xs = np.concatenate([s.vertices[:, 0] for s in content.surfaces])
    assert sorted({*np.floor(xs / 5).astype(int) * 5}) == places
    assert len(content.notes) == len(notes)
    for note, start in zip(content.notes, notes, strict=True):
        assert start in note


def test_hidden_nodes_are_omitted(tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    hide = {"extensions": {"KHR_node_visibility": {"visible": False}}}
    tree = [{"mesh": 0}, {"children": [2], **hide}, {"mesh": 0, "translation": [9, 9, 9]}]
    content = write(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [0, 1]}])
    np.testing.assert_array_equal(content.surfaces[0].vertices, SQUARE)
    assert content.notes == ("1 nodes with meshes are hidden: omitted",)


def test_instances_of_a_node(tmp_path: Path) -> None:
    gltf = Gltf(extensionsRequired=["EXT_mesh_gpu_instancing"])
    gltf.mesh(gltf.square())
    attributes = {
        "TRANSLATION": gltf.array([[0, 0, 0], [10, 0, 0], [20, 0, 0]]),
        "ROTATION": gltf.array(
            [[0, 0, 0, 127], [0, 0, 90, 90], [0, 0, 0, 127]], "i1", normalized=True
        ),
        "SCALE": gltf.array([[1, 1, 1], [1, 1, 1], [2, 2, -2]]),
        "_ID": gltf.array([7, 8, 9]),
    }
    node = {"mesh": 0, "translation": [0, 0, 5], "extensions": {}}
    node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    content = write(tmp_path, gltf, nodes=[node])
    (surface,) = content.surfaces
    centers = surface.vertices.reshape(3, 4, 3).mean(1)
    np.testing.assert_allclose(centers, [[0.5, 0.5, 5], [9.5, 0.5, 5], [21, 1, 5]], atol=1e-6)
    np.testing.assert_allclose(normals(content)[:, 2], [1, 1, 1, 1, -4, -4], atol=1e-6)
    attributes["SCALE"] = gltf.array([[1, 1, 1]])
    with pytest.raises(ValueError, match=r"a\.glb: .*instances"):
        write(tmp_path, gltf, nodes=[node])


def skinned(gltf: Gltf, joints: object, weights: object, dtype: str, **fields: Any) -> None:
    gltf.mesh(
        gltf.square(
            attributes={
                "JOINTS_0": gltf.array(joints, "u1"),
                "WEIGHTS_0": gltf.array(weights, dtype, **fields),
            }
        )
    )


@pytest.mark.parametrize(("dtype", "one"), [("<f4", 1), ("u1", 255), ("<u2", 65535)])
def test_joints_place_a_skin(dtype: str, one: int, tmp_path: Path) -> None:
    gltf = Gltf()
    joints, weights = [[0, 1, 9, 0]] * 4, np.array([[1, 0, 0, 0], [1, 1, 0, 0]] * 2) * one
    weights[[1, 3]] //= 2 if one > 1 else 1  # their sum differs from 1
    skinned(gltf, joints, weights, dtype, normalized=one > 1)
    inverse = np.stack([np.eye(4), np.eye(4)])
    inverse[1, 3, 0] = -4  # columns come first: a shift by -4 along x
    tree = [
        {"mesh": 0, "skin": 0, "scale": [100, 100, 100]},
        {"translation": [0, 0, 1], "children": [2]},
        {"translation": [6, 0, 2]},
    ]
    gltf.json["skins"] = [
        {"joints": [1, 2], "inverseBindMatrices": gltf.array(inverse.reshape(2, 16))}
    ]
    content = write(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [0, 1]}])
    expected = SQUARE + np.array([[0, 0, 1], [1, 0, 2], [0, 0, 1], [1, 0, 2]])
    np.testing.assert_allclose(content.surfaces[0].vertices, expected, atol=1e-5)


def test_joints_without_bind_matrices_and_out_of_range(tmp_path: Path) -> None:
    gltf = Gltf(skins=[{"joints": [1]}])
    skinned(gltf, [[0] * 4] * 4, [[1, 0, 0, 0]] * 4, "<f4")
    tree = [{"mesh": 0, "skin": 0}, {"scale": [-3, 1, 1]}]
    content = write(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [0, 1]}])
    np.testing.assert_array_equal(content.surfaces[0].vertices, SQUARE * [-3, 1, 1])
    assert (normals(content)[:, 2] > 0).all()
    gltf = Gltf(skins=[{"joints": [1]}])
    skinned(gltf, [[5] * 4] * 4, [[1, 0, 0, 0]] * 4, "<f4")
    with pytest.raises(ValueError, match=r"a\.glb: .*joint 5 of 1"):
        write(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [0, 1]}])


@pytest.mark.parametrize(
    ("mesh", "node", "shift"),
    [
        ({}, {}, [0, 0, 0]),
        ({"weights": [0.5, 2]}, {}, [0.5, 2, 0]),
        ({"weights": [0.5, 2]}, {"weights": [0, 3]}, [0, 3, 0]),
    ],
)
def test_morph_targets(
    mesh: dict[str, Any], node: dict[str, Any], shift: list[float], tmp_path: Path
) -> None:
    gltf = Gltf()
    targets = [{"POSITION": gltf.array(np.eye(3)[[axis] * 4])} for axis in range(2)]
    gltf.mesh(gltf.square(targets=targets), **mesh)
    content = write(tmp_path, gltf, nodes=[{"mesh": 0, **node}])
    np.testing.assert_allclose(content.surfaces[0].vertices, SQUARE + shift)


MANY = {"nodes": [{"mesh": 0}] * 5, "scenes": [{"nodes": [*range(5)]}]}


@pytest.mark.parametrize(
    ("module", "limit", "value", "top", "reason"),
    [
        (nodes, "MAX_NODES", 4, MANY, "5 nodes"),
        (reader, "MAX_PRIMITIVES", 4, MANY, "5 mesh primitives"),
        (container, "MIN_UNPACK_LIMIT", 29, MANY, "30 vertices"),
    ],
)
def test_scenes_have_limited_sizes(
    module: object,
    limit: str,
    value: int,
    top: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    assert len(corners(write(tmp_path, gltf, **top))) == 10
    monkeypatch.setattr(module, limit, value)
    monkeypatch.setattr(container, "MAX_UNPACK_RATIO", 0)
    with pytest.raises(ValueError, match=rf"a\.glb: .*{reason}"):
        write(tmp_path, gltf, **top)


@pytest.mark.parametrize(
    "tree",
    [
        [{"children": [1, 2]}, {"children": [2]}, {"mesh": 0}],
        [{"children": [1]}, {"children": [0], "mesh": 0}],
        [{"children": [0]}],
    ],
)
def test_nodes_form_trees(tree: list[dict[str, Any]], tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    with pytest.raises(ValueError, match=r"a\.glb: .*tree"):
        write(tmp_path, gltf, nodes=tree)


def test_trees_of_any_depth_are_read(tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    chain = [{"children": [row + 1], "translation": [0, 0, 1]} for row in range(5000)]
    content = write(tmp_path, gltf, nodes=[*chain, {"mesh": 0}], scenes=[{"nodes": [0]}])
    np.testing.assert_array_equal(content.surfaces[0].vertices, SQUARE + [0, 0, 5000])


def test_a_triangle_of_a_missing_vertex_is_refused(tmp_path: Path) -> None:
    path = write_square(tmp_path / "a.glb", indices=1)
    gltf = Gltf()
    primitive = gltf.square()
    primitive["indices"] = gltf.array([0, 1, 4], "u1")
    gltf.mesh(primitive)
    with pytest.raises(ValueError, match=r"a\.glb: .*vertex 4 of 4"):
        read_shape(gltf.write(path), 20)


def test_a_scene_of_lines_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write_square(tmp_path / "a.glb", mode=3)
    with pytest.raises(ValueError, match=r"a\.glb: .*\(1 primitives are lines: omitted\)"):
        read_shape(path, 20)
