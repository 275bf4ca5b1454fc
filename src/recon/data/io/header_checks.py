"""Check that .ply and .obj files match their headers, before parsing.

Parsers trust the numbers in headers: wrong ones would cost memory or time without limit.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recon.data.io.file_checks import UnsupportedContentError

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
