"""Check that .ply, .obj and .glb files match their headers, before parsing.

Parsers trust the numbers in headers: wrong ones would cost memory or time without limit.
"""

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon.data.io.file_checks import MAX_UNPACK_RATIO, UnsupportedContentError

MAX_GLB_JSON_BYTES = 2**24
"""Maximum size of the JSON chunk of a .glb file, in bytes."""
MATERIAL_EXTENSIONS = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_", "EXT_texture_")
"""Prefixes of glTF extensions that leave the geometry unchanged."""
GLTF_FLOAT = 5126
"""glTF `componentType` of float32."""
GLTF_TRIANGLE_FAN = 6
"""glTF `mode` of a primitive that is a triangle fan."""
MAX_NODE_DEPTH = 256
"""Maximum depth of the node tree of a scene."""
MAX_MESH_PARTS = 2**13
"""Maximum number of nodes, materials and mesh primitives; each takes about a millisecond."""
FACE_INDEX_PROPERTIES = ("vertex_indices", "vertex_index")
"""Names of the list of vertex indices of a face in .ply files."""
PLY_SIZES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8,
    "float64": 8,
}  # fmt: skip
"""Bytes of the number types in .ply files."""


class _PlyElement(NamedTuple):
    name: str
    number: int
    """Declared number of elements of this name."""
    min_bytes: int
    """Minimum size of one of them."""


def check_ply(path: Path) -> None:
    """Raise ValueError for a .ply file whose size does not match its header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**16)
    end = re.search(rb"end_header\r?\n", head)
    if not head.startswith(b"ply") or end is None:
        raise ValueError("it has no PLY header")
    lines = [line.split() for line in head[: end.start()].decode("latin1").splitlines()]
    is_text = any(words[:2] == ["format", "ascii"] for words in lines)
    min_bytes = num_elements = 0
    for element in _parse_ply_elements(lines, is_text=is_text):
        if not 0 <= element.number <= size or (element.number and not element.min_bytes):
            raise ValueError(f"its header declares {element.number} of {element.name!r}")
        min_bytes += element.number * element.min_bytes
        num_elements += element.number
    body_bytes = size - end.end()
    if min_bytes > body_bytes + 1:  # the last line may lack its newline
        raise ValueError(f"its header declares {min_bytes} bytes, it has {body_bytes}")
    has_lists = any(words[1:2] == ["list"] for words in lines)
    if not is_text and not has_lists and _has_content_after(path, end.end() + min_bytes):
        raise ValueError(f"{body_bytes - min_bytes} bytes follow the last element")
    if is_text:
        num_lines = path.read_bytes()[end.end() :].rstrip().count(b"\n") + 1
        if num_lines > num_elements > 0:
            raise ValueError(
                f"its header declares {num_elements} elements, {num_lines} lines follow"
            )


def _has_content_after(path: Path, offset: int) -> bool:
    """Return whether more than white space follows a byte offset of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        tail = file.read(2**16 + 1)
    return len(tail) > 2**16 or bool(tail.strip())


def _parse_ply_elements(lines: Sequence[Sequence[str]], *, is_text: bool) -> list[_PlyElement]:
    elements: list[_PlyElement] = []
    for words in lines:
        if words[:1] == ["element"] and len(words) == 3:
            if not words[2].isdecimal():
                raise ValueError(f"its header declares {words[2]} of {words[1]!r}")
            elements.append(_PlyElement(words[1], int(words[2]), 0))
        elif words[:1] == ["property"] and len(words) > 2 and elements:
            types = words[2:3] if words[1] == "list" else words[1:2]
            if words[-1] in FACE_INDEX_PROPERTIES and len(words) == 5:
                types = [types[0], *[words[3]] * 3]  # faces have at least three indices
            # In a text a number takes at least a digit and a separator.
            sizes = [2 if is_text else PLY_SIZES.get(name, 1) for name in types]
            elements[-1] = elements[-1]._replace(min_bytes=elements[-1].min_bytes + sum(sizes))
    return elements


OBJ_VERTEX, OBJ_VALID_VERTEX, OBJ_MATERIAL, OBJ_FACE, OBJ_NEGATIVE_INDEX, OBJ_ZERO_INDEX = (
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rb"^[ \t]*v[ \t]",
        rb"^[ \t]*v(?:[ \t]+\S+){3,8}[ \t]*\r?$",
        rb"^[ \t]*usemtl[ \t]([^\r\n]*)",
        rb"^[ \t]*f[ \t]",
        rb"^[ \t]*f[ \t](?:.*[ \t])?-\d",
        rb"^[ \t]*f[ \t](?:.*[ \t])?0+(?:[/ \t\r]|$)",
    )
)
"""Patterns of lines in .obj files."""


def check_obj(path: Path) -> None:
    """Raise ValueError for an .obj file that trimesh would misread or with too many materials."""
    content = path.read_bytes()
    if b"\0" in content[:4096]:
        raise ValueError("it is not text")
    if len(OBJ_VERTEX.findall(content)) != len(OBJ_VALID_VERTEX.findall(content)):
        raise ValueError("it has vertices of fewer than three numbers or more than eight")
    if OBJ_ZERO_INDEX.search(content):
        raise UnsupportedContentError(
            "it has a face with vertex index 0: number vertices from 1, as OBJ requires"
        )
    face = OBJ_FACE.search(content)
    if face and OBJ_VERTEX.search(content, face.end()) and OBJ_NEGATIVE_INDEX.search(content):
        raise UnsupportedContentError(
            "its faces have negative vertex indices, and vertices follow after faces: write "
            "positive indices"
        )
    if len(names := {*OBJ_MATERIAL.findall(content)}) > MAX_MESH_PARTS:
        raise UnsupportedContentError(
            f"it has {len(names)} materials, the maximum is {MAX_MESH_PARTS}: merge materials"
        )


def check_glb(path: Path) -> None:
    """Raise ValueError for a .glb file that declares more than it contains or is not supported."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or head[:4] != b"glTF":
            raise ValueError("it has no GLB header")
        length = struct.unpack("<I", head[12:16])[0]
        if length > min(size - 20, MAX_GLB_JSON_BYTES):
            raise ValueError(
                f"its header declares a scene of {length} bytes, it has {size - 20}, at most "
                f"{MAX_GLB_JSON_BYTES} are read"
            )
        scene = json.loads(file.read(length))
    if not isinstance(scene, dict):
        raise ValueError("its JSON does not describe a scene")
    counts = [accessor.get("count", 0) for accessor in scene.get("accessors", [])]
    if (
        any(not isinstance(n, int) or n < 0 for n in counts)
        or sum(counts) > MAX_UNPACK_RATIO * size
    ):
        raise ValueError(f"its scene declares {sum(map(int, counts))} values in {size} bytes")
    _check_glb_features(scene)
    _check_node_tree(scene.get("nodes", []))
    _check_instances(scene, size)


def _check_glb_features(scene: dict[str, Any]) -> None:
    """Raise ValueError for features that trimesh ignores, which would give wrong points."""
    required = scene.get("extensionsRequired", [])
    unknown = [name for name in required if not str(name).startswith(MATERIAL_EXTENSIONS)]
    if unknown:
        raise UnsupportedContentError(
            f"it needs the extension {unknown[0]!r}, which is not supported: export it without"
        )
    views = [*scene.get("accessors", []), *scene.get("bufferViews", [])]
    if any("sparse" in view or view.get("byteOffset", 0) < 0 for view in views):
        raise UnsupportedContentError(
            "it has sparse accessors or negative byte offsets: export it without"
        )
    for primitive in (p for mesh in scene.get("meshes", []) for p in mesh["primitives"]):
        accessor = scene["accessors"][primitive["attributes"]["POSITION"]]
        if (accessor["type"], accessor["componentType"]) != ("VEC3", GLTF_FLOAT):
            raise UnsupportedContentError(
                "it has positions that are not three floats: export positions as float32"
            )
        if primitive.get("mode", 4) == GLTF_TRIANGLE_FAN:
            raise UnsupportedContentError("it has triangle fans: export single triangles")


def _check_node_tree(nodes: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError for too many nodes, cycles, nodes with several parents, or deep trees."""
    if len(nodes) > MAX_MESH_PARTS:
        raise UnsupportedContentError(
            f"it has {len(nodes)} nodes, the maximum is {MAX_MESH_PARTS}: merge or remove nodes"
        )
    children = [child for node in nodes for child in node.get("children", [])]
    parents = {child: row for row, node in enumerate(nodes) for child in node.get("children", [])}
    if len(parents) < len(children):
        raise ValueError("its nodes do not form a tree")
    for row in range(len(nodes)):
        depth, ancestor = 0, row
        while ancestor in parents and depth <= MAX_NODE_DEPTH:
            depth, ancestor = depth + 1, parents[ancestor]
        if depth > MAX_NODE_DEPTH:
            raise UnsupportedContentError(
                f"its nodes are nested more than {MAX_NODE_DEPTH} levels deep: flatten the scene"
            )


def _check_instances(scene: dict[str, Any], size: int) -> None:
    """Raise ValueError where the nodes repeat meshes to too many values or parts in total."""
    accessors, meshes = scene.get("accessors", []), scene.get("meshes", [])
    values_per_mesh = [
        sum(
            int(accessors[n]["count"]) for p in mesh["primitives"] for n in p["attributes"].values()
        )
        for mesh in meshes
    ]
    nodes = scene.get("nodes", [])
    num_values = sum(values_per_mesh[node["mesh"]] for node in nodes if "mesh" in node)
    if num_values > MAX_UNPACK_RATIO * size:
        raise ValueError(f"its nodes repeat meshes to {num_values} values, it has {size} bytes")
    num_parts = sum(len(meshes[node["mesh"]]["primitives"]) for node in nodes if "mesh" in node)
    if num_parts > MAX_MESH_PARTS:
        raise UnsupportedContentError(
            f"its nodes refer to {num_parts} mesh primitives, the maximum is {MAX_MESH_PARTS}: "
            "merge or remove some"
        )
