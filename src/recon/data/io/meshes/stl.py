"""Read .stl files: binary, also with colors of faces, and text of one or several solids."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Num

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.meshes.numbers import parse_numbers
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface
from recon.data.io.points.table import ReadOptions

HEADER_BYTES, FACET_BYTES = 84, 50
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])
"""A triangle of a binary .stl file."""
COLOR_BIT = 1 << 15
"""Bit of a facet's color: it has one (VisCAM, SolidView), or it has none (Materialise)."""
MATERIALISE_COLOR = b"COLOR="
"""Beginning of the color of all facets in the header of Materialise's files."""
WORDS_BETWEEN = re.compile(
    rb"\s*facet\s+normal\s+\S+\s+\S+\s+\S+\s+outer\s+loop|\s*endloop\s+endfacet"
    rb"|\s*(?:end)?solid[^\n]*",
    re.IGNORECASE,
)
"""Everything in a text .stl file but its vertices."""


def read_stl(path: Path, options: ReadOptions) -> MeshContent:
    """Read the triangles of a file; raise ValueError that names the file."""
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        content = path.read_bytes()
        count = int.from_bytes(content[80:84], "little")
        # Some binary files begin with the word of text files.
        if len(content) == HEADER_BYTES + FACET_BYTES * count and len(content) >= HEADER_BYTES:
            return _read_binary(content)
        if b"\0" in content[:4096] or not content[:512].lstrip().lower().startswith(b"solid"):
            raise ValueError(
                f"its header declares {count} triangles of 50 bytes each, it has {len(content)} "
                "bytes"
            )
        return _read_text(content)


def _read_binary(content: bytes) -> MeshContent:
    facets = np.frombuffer(content, FACET, offset=HEADER_BYTES)
    if not len(facets):
        return MeshContent()
    vertices = facets["corners"].reshape(-1, 3).astype(np.float64)
    surface = Surface(vertices, np.arange(len(vertices)).reshape(-1, 3))
    colors, notes = _read_colors(content[:80], facets["color"])
    return MeshContent([surface._replace(face_colors=colors)], notes=notes)


def _read_colors(
    header: bytes, values: Num[np.ndarray, " f"]
) -> tuple[Num[np.ndarray, "f 3"] | None, tuple[str, ...]]:
    """Return the colors of all facets as fractions; None, with a note if only some have one."""
    values, place = values.astype(np.int64), header.find(MATERIALISE_COLOR)
    has_bit = (values & COLOR_BIT) > 0
    channels = np.stack([values & 31, (values >> 5) & 31, (values >> 10) & 31], 1) / 31
    if 0 <= place <= 80 - len(MATERIALISE_COLOR) - 3:
        start = place + len(MATERIALISE_COLOR)
        common = np.frombuffer(header, np.uint8, 3, start) / 255
        return np.where(has_bit[:, None], common, channels), ()
    if not has_bit.any() or (values[~has_bit] > 0).any():  # other uses of these bytes
        return None, ()
    if not has_bit.all():
        note = f"{int(has_bit.sum()):,} of {len(values):,} faces have colors: none are used"
        return None, (note,)
    return channels[:, ::-1], ()


def _read_text(content: bytes) -> MeshContent:
    content = content.replace(b"\r", b"\n")
    parts = re.split(rb"\bvertex\b", WORDS_BETWEEN.sub(b"\n", content), flags=re.IGNORECASE)
    num_facets = len(re.findall(rb"\bfacet\b", content, re.IGNORECASE))
    num_corners = len(parts) - 1
    if num_corners != 3 * num_facets or parts[0].strip():
        raise ValueError(f"its {num_facets} facets have {num_corners} vertices, not 3 each")
    if any(len(part.split()) != 3 for part in parts[1:]):
        raise ValueError("it has vertices that are not three numbers")
    if not num_facets:
        return MeshContent()
    vertices = parse_numbers(b" ".join(parts)).reshape(-1, 3)
    return MeshContent([Surface(vertices, np.arange(num_corners).reshape(-1, 3))])
