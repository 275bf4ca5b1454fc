"""Check that .obj files match their headers, before parsing.

Parsers trust the numbers in headers: wrong ones would cost memory or time without limit.
"""

import re
from pathlib import Path

from recon.data.io.file_checks import UnsupportedContentError

MAX_MESH_PARTS = 2**13
"""Maximum number of nodes, materials and mesh primitives; each takes about a millisecond."""


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
