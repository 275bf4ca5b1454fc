"""Split the text of .obj files into blocks of lines of one kind, and parse vertices and faces."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.numbers import (
    as_bytes,
    count_words,
    find_words,
    parse_numbers,
    remove_comments,
)

SLASH = ord("/")
FREE_FORM = ("curv", "curv2", "surf")
"""Elements that are not read; their shape is in other lines."""


class ObjLines(NamedTuple):
    """Lines of a file, and which of them are vertices, texture places, normals and faces."""

    content: bytes
    starts: Int[np.ndarray, " l"]
    ends: Int[np.ndarray, " l"]
    is_vertex: Bool[np.ndarray, " l"]
    is_uv: Bool[np.ndarray, " l"]
    is_normal: Bool[np.ndarray, " l"]
    is_face: Bool[np.ndarray, " l"]
    others: Sequence[tuple[int, list[bytes]]]
    """Number and words of all other statements."""


class ObjFaces(NamedTuple):
    """Polygons: indices of their corners from 0 on, one after another."""

    sizes: Int[np.ndarray, " p"]
    corners: Int[np.ndarray, " c"]
    uv: Int[np.ndarray, " c"]
    """Index of the texture place of each corner, -1 without one."""


def split_lines(content: bytes) -> ObjLines:
    """Join lines that continue on the next one, and find the kind of each line."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\\\n" in content:
        content = content.replace(b"\\\n", b" ")
    if re.search(rb"^[ \t]", content, re.MULTILINE):
        content = re.sub(rb"^[ \t]+", b"", content, flags=re.MULTILINE)
    data = np.frombuffer(content + b"\n\n\n\n", np.uint8)
    ends = np.flatnonzero(data[: len(content) + 1] == 10)
    starts = np.concatenate([[0], ends[:-1] + 1])
    first, second, third = data[starts], data[starts + 1], data[starts + 2]
    is_short, is_long = _is_blank(second), _is_blank(third)
    is_v = first == ord("v")
    is_f = first == ord("f")
    is_known = is_v | is_f | (first == ord("#")) | (first == 10)
    is_known |= ((first == ord("g")) | (first == ord("s")) | (first == ord("o"))) & is_short
    others = [
        (row, content[starts[row] : ends[row]].split())
        for row in np.flatnonzero(~is_known).tolist()
    ]
    return ObjLines(
        content,
        starts,
        ends,
        is_v & is_short,
        is_v & (second == ord("t")) & is_long,
        is_v & (second == ord("n")) & is_long,
        is_f & (is_short | ((second == ord("o")) & is_long)),
        others,
    )


def _is_blank(data: UInt8[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return (data == ord(" ")) | (data == ord("\t"))


def _join(lines: ObjLines, mask: Bool[np.ndarray, " l"], keyword: bytes) -> bytes:
    """Return the selected lines without their keyword and comments."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    firsts, lasts = lines.starts[edges[::2]], lines.ends[edges[1::2] - 1]
    runs = zip(firsts.tolist(), lasts.tolist(), strict=True)
    text = remove_comments(b"\n".join([lines.content[first:last] for first, last in runs]))
    return text.replace(keyword, b" " * len(keyword))


def parse_rows(
    lines: ObjLines, mask: Bool[np.ndarray, " l"], keyword: bytes, minimum: int
) -> tuple[Float[np.ndarray, " m"], Int[np.ndarray, " n"]]:
    """Return the numbers of the selected lines, one after another, and how many each line has.

    Raises ValueError for lines of fewer than `minimum` numbers.
    """
    text = _join(lines, mask, keyword)
    data = as_bytes(text)
    counts = count_words(data, find_words(data))
    if len(counts) < int(mask.sum()) or (len(counts) and int(counts.min()) < minimum):
        names = {b"v": "vertices", b"vt": "texture places", b"vn": "normals"}
        words = ("no", "one", "two", "three")
        raise ValueError(f"it has {names[keyword]} of fewer than {words[minimum]} numbers")
    return parse_numbers(text), counts


def parse_faces(lines: ObjLines) -> ObjFaces:
    """Return all polygons; negative indices count back from the last line before the face.

    Raises ValueError for indices that are zero.
    """
    text = _join(lines, lines.is_face, b"f").replace(b"o", b" ")
    data = as_bytes(text)
    words = find_words(data)
    sizes = count_words(data, words)
    if len(sizes) != int(lines.is_face.sum()):
        raise ValueError("it has faces without vertices")
    owners = np.repeat(np.arange(len(sizes)), sizes)
    if b"/" not in text:
        indices = parse_numbers(text, np.int64)
        return ObjFaces(
            sizes, _resolve(indices, owners, lines, lines.is_vertex), np.full(len(indices), -1)
        )
    indices = parse_numbers(text.replace(b"/", b" "), np.int64)
    slashes = np.flatnonzero(data == SLASH)
    is_number = (data[slashes + 1] > 32) & (data[slashes + 1] != SLASH)
    before = np.searchsorted(slashes, words)  # slashes before each word
    num_slashes = np.diff(before, append=len(slashes))
    total = np.concatenate([[0], np.cumsum(is_number)])
    widths = 1 + total[before + num_slashes] - total[before]
    if int(widths.sum()) != len(indices):
        raise ValueError("it has faces with indices that are not whole numbers")
    places = np.cumsum(widths) - widths
    has_uv = num_slashes > 0
    has_uv[has_uv] = is_number[before[has_uv]]
    uv = np.full(len(words), -1)
    uv[has_uv] = _resolve(indices[places[has_uv] + 1], owners[has_uv], lines, lines.is_uv)
    return ObjFaces(sizes, _resolve(indices[places], owners, lines, lines.is_vertex), uv)


def _resolve(
    indices: Int[np.ndarray, " n"],
    owners: Int[np.ndarray, " n"],
    lines: ObjLines,
    is_counted: Bool[np.ndarray, " l"],
) -> Int[np.ndarray, " n"]:
    """Return indices from 0 on; negative ones are relative to what was read before their face.

    `owners` are the faces of the indices.
    """
    lowest = int(indices.min()) if len(indices) else 1
    if lowest > 0:
        return indices - 1
    if (indices == 0).any():
        raise UnsupportedContentError(
            "it has a face with vertex index 0: number vertices from 1, as OBJ requires"
        )
    counts = np.cumsum(is_counted)[lines.is_face][owners]
    resolved = np.where(indices < 0, counts + indices, indices - 1)
    if int(resolved.min()) < 0:
        raise UnsupportedContentError(
            f"a face has the index {lowest}, before as many were defined: export it again"
        )
    return resolved


def take_columns(
    numbers: Float[np.ndarray, " m"], counts: Int[np.ndarray, " n"], columns: Sequence[int]
) -> Float[np.ndarray, "n c"]:
    """Return columns of rows of different lengths; missing numbers are zero."""
    if len(counts) and (counts == counts[0]).all():
        table = numbers.reshape(len(counts), -1)
        if max(columns) < table.shape[1]:
            return table[:, list(columns)]
    starts = np.cumsum(counts) - counts
    padded = np.append(numbers, 0.0)
    places = [np.where(counts > c, starts + c, len(numbers)) for c in columns]
    return padded[np.stack(places, 1)] if len(counts) else np.empty((0, len(columns)))
