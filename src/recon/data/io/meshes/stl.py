"""Read .stl files: binary, also with colors of faces, and text of one or several solids."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.meshes.numbers import as_bytes, count_words, find_words, parse_numbers
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface
from recon.data.io.points.table import ReadOptions

HEADER_BYTES, FACET_BYTES = 84, 50
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])
"""A triangle of a binary .stl file."""
COLOR_BIT = 1 << 15
"""Bit of a facet's color: it has one (VisCAM, SolidView), or it has none (Materialise)."""
MATERIALISE_COLOR = b"COLOR="
"""Beginning of the color of all facets in the header of Materialise's files."""
KEYWORD = re.compile(rb"\b(solid|facet|outer|vertex|endloop|endfacet|endsolid)\b")


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
        if has_bit.all() and channels.any():  # MeshLab sets the bit of colors of facets, too
            return channels, ()
        return np.where(has_bit[:, None], common, channels), ()
    if not has_bit.any() or (values[~has_bit] > 0).any():  # other uses of these bytes
        return None, ()
    if not has_bit.all():
        note = f"{int(has_bit.sum()):,} of {len(values):,} faces have colors: none are used"
        return None, (note,)
    return channels[:, ::-1], ()


def _read_text(content: bytes) -> MeshContent:
    lines = [line.strip() for line in content.replace(b"\r", b"\n").lower().split(b"\n")]
    num_facets, corners = _find_corners(lines)
    if len(corners) != 3 * num_facets:  # lines may end anywhere
        lines = KEYWORD.sub(rb"\n\1", b" ".join(lines)).split(b"\n")
        num_facets, corners = _find_corners(lines)
    if len(corners) != 3 * num_facets:
        raise ValueError(f"its {num_facets} facets have {len(corners)} vertices, not 3 each")
    if not num_facets:
        return MeshContent()
    text = b"\n".join(corners)
    data = as_bytes(text)
    widths = count_words(data, find_words(data))
    if len(widths) != len(corners) or not (widths == 3).all():
        raise ValueError("it has vertices that are not three numbers")
    vertices = parse_numbers(text).reshape(-1, 3)
    return MeshContent([Surface(vertices, np.arange(len(corners)).reshape(-1, 3))])


def _find_corners(lines: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """Return the number of facets, and the coordinates of each vertex."""
    num_facets = sum(line.startswith(b"facet") for line in lines)
    return num_facets, [line[6:] for line in lines if line.startswith(b"vertex")]
