"""What files announce, held against what they hold, before anything is allocated or walked.

The parsers of the formats believe a header: one that lies costs memory or time without end.
"""

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon.data.io.file_checks import MAX_UNPACK_RATIO

MAX_GLB_JSON_BYTES = 2**24
"""Bytes of the longest description of a scene."""
MATERIAL_EXTENSIONS = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_", "EXT_texture_")
"""Extensions that change no points."""
GLTF_FLOAT, GLTF_TRIANGLE_FAN = 5126, 6
"""Of glTF: a type of numbers, and of what corners form."""
MAX_NODE_DEPTH, MAX_MESH_PARTS = 256, 2**13
"""Nodes of a scene that lie in one another, and parts of meshes: each takes a millisecond."""
FACE_INDEX_PROPERTIES = ("vertex_indices", "vertex_index")
"""Of a face, as .ply files call them."""
PLY_SIZES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8,
    "float64": 8,
}  # fmt: skip


class _Element(NamedTuple):
    name: str
    announced: int
    least: int
    """Bytes that one of them takes at least."""


def check_ply(path: Path) -> None:
    """Raise ValueError for a .ply file that announces more than fits into it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**16)
    end = re.search(rb"end_header\r?\n", head)
    if not head.startswith(b"ply") or end is None:
        raise ValueError("it has no header of a PLY file")
    lines = [line.split() for line in head[: end.start()].decode("latin1").splitlines()]
    text = any(words[:2] == ["format", "ascii"] for words in lines)
    least = announced = 0
    for element in _elements(lines, text=text):
        if not 0 <= element.announced <= size or (element.announced and not element.least):
            raise ValueError(f"{element.announced} of {element.name!r} are announced")
        least += element.announced * element.least
        announced += element.announced
    if least > size - end.end() + 1:  # the last line may lack its end
        raise ValueError(f"{least} bytes are announced, it has {size - end.end()}")
    lists = any(words[1:2] == ["list"] for words in lines)
    if not text and not lists and _follows(path, end.end() + least):
        raise ValueError(f"{size - end.end() - least} bytes follow what is announced")
    if text and (found := path.read_bytes()[end.end() :].rstrip().count(b"\n") + 1) > announced > 0:
        raise ValueError(f"{found} lines follow, {announced} are announced")


def _follows(path: Path, place: int) -> bool:
    """Tell whether more than blanks and ends of lines follows a place in a file."""
    with path.open("rb") as file:
        file.seek(place)
        rest = file.read(2**16 + 1)
    return len(rest) > 2**16 or bool(rest.strip())


def _elements(lines: Sequence[Sequence[str]], *, text: bool) -> list[_Element]:
    found: list[_Element] = []
    for words in lines:
        if words[:1] == ["element"] and len(words) == 3:
            if not words[2].isdecimal():
                raise ValueError(f"{words[2]} of {words[1]!r} are announced")
            found.append(_Element(words[1], int(words[2]), 0))
        elif words[:1] == ["property"] and len(words) > 2 and found:
            kinds = words[2:3] if words[1] == "list" else words[1:2]
            if words[-1] in FACE_INDEX_PROPERTIES and len(words) == 5:  # faces have three at least
                kinds = [kinds[0], *[words[3]] * 3]
            # A number and a blank, or a line's end, in a text.
            sizes = [2 if text else PLY_SIZES.get(kind, 1) for kind in kinds]
            found[-1] = found[-1]._replace(least=found[-1].least + sum(sizes))
    return found


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
"""Of lines in an .obj file."""


def check_obj(path: Path) -> None:
    """Raise ValueError for an .obj file that trimesh would misread, or of too many materials."""
    content = path.read_bytes()
    if b"\0" in content[:4096]:
        raise ValueError("it is no text")
    if len(OBJ_VERTEX.findall(content)) != len(OBJ_VALID_VERTEX.findall(content)):
        raise ValueError("it has vertices of fewer than three numbers, or of more than eight")
    if OBJ_ZERO_INDEX.search(content):
        raise ValueError("it has a face of vertex 0: they are numbered from 1 on")
    face = OBJ_FACE.search(content)
    if face and OBJ_VERTEX.search(content, face.end()) and OBJ_NEGATIVE_INDEX.search(content):
        raise ValueError(
            "its faces count back from where they stand, and vertices follow: number them from the "
            "first one on"
        )
    if len(names := {*OBJ_MATERIAL.findall(content)}) > MAX_MESH_PARTS:
        raise ValueError(f"it has {len(names)} materials, parts of {MAX_MESH_PARTS} are read")


STL_FACET = re.compile(rb"^[ \t]*facet[ \t]", re.MULTILINE | re.IGNORECASE)
STL_VERTEX = re.compile(rb"^[ \t]*vertex[ \t]", re.MULTILINE | re.IGNORECASE)
STL_VALID_VERTEX = re.compile(
    rb"^[ \t]*vertex(?:[ \t]+\S+){3}[ \t]*\r?$", re.MULTILINE | re.IGNORECASE
)
"""Of lines in an .stl file of text."""


def check_stl(path: Path) -> None:
    """Raise ValueError for an .stl file that is no text, and not as long as it announces."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
    count = struct.unpack_from("<I", head, 80)[0] if len(head) >= 84 else 0
    if b"\0" in head and size != 84 + 50 * count:
        raise ValueError(f"{count} triangles of 50 bytes are announced, it has {size} bytes")
    if b"\0" not in head:
        content = path.read_bytes()
        facets, corners = STL_FACET.findall(content), STL_VALID_VERTEX.findall(content)
        if not len(corners) == 3 * len(facets) == len(STL_VERTEX.findall(content)):
            raise ValueError(f"its {len(facets)} facets have {len(corners)} corners, not 3 each")


def check_glb(path: Path) -> None:
    """Raise ValueError for a .glb file that announces more than it holds, or nodes in a circle."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or head[:4] != b"glTF":
            raise ValueError("it has no header of a GLB file")
        length = struct.unpack("<I", head[12:16])[0]
        if length > min(size - 20, MAX_GLB_JSON_BYTES):
            raise ValueError(f"a scene of {length} bytes is announced, it has {size - 20}")
        scene = json.loads(file.read(length))
    if not isinstance(scene, dict):
        raise ValueError("it describes no scene")
    counts = [accessor.get("count", 0) for accessor in scene.get("accessors", [])]
    if (
        any(not isinstance(n, int) or n < 0 for n in counts)
        or sum(counts) > MAX_UNPACK_RATIO * size
    ):
        raise ValueError(f"{sum(map(int, counts))} values are announced in {size} bytes")
    _check_features(scene)
    _check_tree(scene.get("nodes", []))
    _check_instances(scene, size)


def _check_features(scene: dict[str, Any]) -> None:
    """Raise ValueError for what trimesh passes over, and would give other points."""
    needed = scene.get("extensionsRequired", [])
    if strange := [name for name in needed if not str(name).startswith(MATERIAL_EXTENSIONS)]:
        raise ValueError(f"it needs the extension {strange[0]!r}, which is not read")
    views = [*scene.get("accessors", []), *scene.get("bufferViews", [])]
    if any("sparse" in view or view.get("byteOffset", 0) < 0 for view in views):
        raise ValueError("its values are sparse, or begin before their buffer")
    for part in (p for mesh in scene.get("meshes", []) for p in mesh["primitives"]):
        place = scene["accessors"][part["attributes"]["POSITION"]]
        if (place["type"], place["componentType"]) != ("VEC3", GLTF_FLOAT):
            raise ValueError("it has positions that are not three floats each")
        if part.get("mode", 4) == GLTF_TRIANGLE_FAN:
            raise ValueError("it has fans of triangles: write single ones")


def _check_tree(nodes: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError for too many nodes, in a circle, with several parents, or too deep."""
    if len(nodes) > MAX_MESH_PARTS:
        raise ValueError(f"it has {len(nodes)} nodes, {MAX_MESH_PARTS} are read")
    children = [child for node in nodes for child in node.get("children", [])]
    above = {child: row for row, node in enumerate(nodes) for child in node.get("children", [])}
    if len(above) < len(children):
        raise ValueError("its nodes form no tree")
    for row in range(len(nodes)):
        depth, place = 0, row
        while place in above and depth <= MAX_NODE_DEPTH:
            depth, place = depth + 1, above[place]
        if depth > MAX_NODE_DEPTH:
            raise ValueError(f"more than {MAX_NODE_DEPTH} of its nodes lie in one another")


def _check_instances(scene: dict[str, Any], size: int) -> None:
    """Raise ValueError where one mesh stands in so many places that all is too much."""
    accessors, meshes = scene.get("accessors", []), scene.get("meshes", [])
    corners = [
        sum(
            int(accessors[n]["count"]) for p in mesh["primitives"] for n in p["attributes"].values()
        )
        for mesh in meshes
    ]
    shown = sum(corners[node["mesh"]] for node in scene.get("nodes", []) if "mesh" in node)
    if shown > MAX_UNPACK_RATIO * size:
        raise ValueError(f"its nodes show {shown} values, of a file of {size} bytes")
    nodes = scene.get("nodes", [])
    parts = sum(len(meshes[node["mesh"]]["primitives"]) for node in nodes if "mesh" in node)
    if parts > MAX_MESH_PARTS:
        raise ValueError(f"its nodes show {parts} parts of meshes, {MAX_MESH_PARTS} are read")
