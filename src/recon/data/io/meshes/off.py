"""Read .off files: all prefixes for three coordinates, colors of vertices and faces, polygons."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.numbers import (
    as_bytes,
    count_words,
    find_words,
    parse_numbers,
    range_each,
    read_text,
    remove_comments,
)
from recon.data.io.meshes.off_layout import COORDINATES, NORMAL, OffLayout, find_layout
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface
from recon.data.io.meshes.triangulation import triangulate
from recon.data.io.points.cloud import normalize_colors
from recon.data.io.points.table import PointTable, ReadOptions

HEADER = re.compile(
    rb"\s*(?P<prefix>(?:ST|C|N|4|n)*)(?P<off>OFF)?\s*"
    rb"(?P<vertices>\d+)(?P<gap>\s+)(?P<faces>\d+)(?P<edges>\s+-?\d+)?(?=\s|$)"
)
"""Prefix and counts; the word OFF is optional, and may be followed by the counts at once."""


class _Faces(NamedTuple):
    sizes: Int[np.ndarray, " f"]
    corners: Int[np.ndarray, " c"]
    """Vertex indices of the corners of all faces, one after another."""
    others: Float[np.ndarray, " k"] | None = None
    """Numbers after the corners of all faces."""
    other_widths: Int[np.ndarray, " f"] | None = None


def read_off(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surface of a file, or its points if it has no faces.

    Raises ValueError that names the file.
    """
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        text = remove_comments(read_text(path).replace(b"\r", b"\n"))
        if lower := re.match(rb"\s*(?:st)?c?n?off", text):
            text = lower[0].upper() + text[lower.end() :]
        head = HEADER.match(text)
        if head is None or b"\0" in text[:4096] or (head["prefix"] and not head["off"]):
            raise _describe_header(text)
        if {"4", "n"} & {*(prefix := head["prefix"].decode())}:
            raise _describe_header(text)
        body = text[_find_end(head) :]
        return _read_body(body, int(head["vertices"]), int(head["faces"]), prefix, str(path))


def _describe_header(text: bytes) -> ValueError:
    if re.match(rb"\s*\w*OFF\s+BINARY", text):
        return UnsupportedContentError("it is a binary OFF file: export it as text")
    if re.match(rb"\s*\w*4\w*OFF", text):
        return UnsupportedContentError("its vertices have four coordinates: export three")
    if re.match(rb"\s*\w*n\w*OFF", text):
        return UnsupportedContentError(
            "its vertices have another number of coordinates than three: export three"
        )
    return ValueError("it does not start with OFF and the numbers of vertices and faces")


def _find_end(head: re.Match[bytes]) -> int:
    """Return the end of the header; the number of edges is optional on the line of the others."""
    edges = head["edges"]
    if edges is not None and b"\n" in edges and b"\n" not in head["gap"]:
        return head.end("faces")
    return head.end()


def _read_body(
    text: bytes, num_vertices: int, num_faces: int, prefix: str, source: str
) -> MeshContent:
    if COORDINATES * num_vertices + num_faces > len(text):
        raise ValueError(
            f"its header declares {num_vertices} vertices and {num_faces} faces, it ends after "
            f"{len(text)} bytes"
        )
    numbers = parse_numbers(text)
    rest = numbers[COORDINATES * num_vertices :]
    if num_faces and len(rest) == 4 * num_faces and (rest[::4] == 3).all() and not prefix:
        vertices = numbers[: COORDINATES * num_vertices].reshape(-1, COORDINATES)
        return MeshContent([Surface(vertices, rest.reshape(-1, 4)[:, 1:].astype(np.int64))])
    data = as_bytes(text)
    widths = count_words(data, find_words(data))
    layout, notes = find_layout(widths[:num_vertices], numbers, num_vertices, prefix)
    table = _read_vertices(numbers, num_vertices, layout, source)._replace(notes=notes)
    is_by_line = len(widths) == num_vertices + num_faces
    faces = _split_faces(
        numbers[layout.width * num_vertices :],
        num_faces,
        widths[num_vertices:] if is_by_line else None,
    )
    triangles, owners = triangulate(table.points, faces.corners, faces.sizes)
    if not len(triangles):
        return MeshContent(points=table)
    face_colors, color_notes = _select_face_colors(faces, source)
    surface = Surface(table.points, faces.corners[triangles], table.colors)
    if face_colors is not None:
        surface = surface._replace(face_colors=face_colors[owners])
    return MeshContent([surface], notes=(*notes, *color_notes))


def _read_vertices(
    numbers: Float[np.ndarray, " m"], num_vertices: int, layout: OffLayout, source: str
) -> PointTable:
    num_values = layout.width * num_vertices
    if num_values > len(numbers):
        raise ValueError(f"it ends after {len(numbers)} of {num_values} numbers of its vertices")
    columns = numbers[:num_values].reshape(num_vertices, layout.width)
    colors = normals = None
    if layout.colors is not None and num_vertices:
        colors = normalize_colors(columns[:, layout.colors : layout.colors + 3], source)
    if layout.normals is not None:
        normals = columns[:, layout.normals : layout.normals + NORMAL]
    return PointTable(columns[:, :COORDINATES], normals, colors)


def _split_faces(
    numbers: Float[np.ndarray, " m"], num_faces: int, widths: Int[np.ndarray, " f"] | None
) -> _Faces:
    """Split the numbers of faces; `widths` are those of each line, None without one for each face.

    Lines tell where faces end; without them, all numbers are sizes and corners.
    """
    if not num_faces:
        if len(numbers):
            raise ValueError(
                f"its header declares no faces, {len(numbers)} numbers follow its vertices"
            )
        empty = np.empty(0, np.int64)
        return _Faces(empty, empty)
    if widths is not None:
        starts = np.cumsum(widths) - widths
        sizes = numbers[starts].astype(np.int64)
        if (sizes >= 0).all() and (sizes < widths).all():
            corners = numbers[range_each(starts + 1, sizes)].astype(np.int64)
            other_widths = widths - 1 - sizes
            others = numbers[range_each(starts + 1 + sizes, other_widths)]
            return _Faces(sizes, corners, others, other_widths)
    return _walk_faces(numbers, num_faces)


def _walk_faces(numbers: Float[np.ndarray, " m"], num_faces: int) -> _Faces:
    values, place, sizes = numbers.tolist(), 0, list[int]()
    while len(sizes) < num_faces and place < len(values):
        size = int(values[place])
        if size < 0 or place + size >= len(values):
            raise ValueError(
                f"a face declares {size} vertices, {len(values) - place - 1} numbers follow"
            )
        sizes.append(size)
        place += size + 1
    if len(sizes) < num_faces or place < len(values):
        raise ValueError(
            f"its header declares {num_faces} faces, it ends after {len(sizes)} faces and "
            f"{len(values) - place} numbers"
        )
    counts = np.array(sizes, np.int64)
    starts = np.cumsum(counts + 1) - counts
    return _Faces(counts, numbers[range_each(starts, counts)].astype(np.int64))


def _select_face_colors(
    faces: _Faces, source: str
) -> tuple[Num[np.ndarray, "f 3"] | None, tuple[str, ...]]:
    """Return the colors of faces where all have three or four numbers, and notes about others."""
    if faces.others is None or faces.other_widths is None or not len(faces.others):
        return None, ()
    has_color = faces.other_widths >= 3
    if has_color.all():
        starts = np.cumsum(faces.other_widths) - faces.other_widths
        return normalize_colors(faces.others[starts[:, None] + np.arange(3)], source), ()
    if not has_color.any():
        return None, ("its faces have indices of a color map, which the file lacks: no colors",)
    count, total = int(has_color.sum()), len(has_color)
    return None, (f"{count:,} of {total:,} faces have colors: none are used",)
