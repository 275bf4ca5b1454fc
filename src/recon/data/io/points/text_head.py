"""Find the column names, the separator and the first row of a text file of points."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.points.columns import has_degrees, has_point_names

HEAD_BYTES = 2**16
"""Maximum size of the lines before the first row, in bytes."""
SNIFFED_BYTES = 2**13
"""Size of the part of a file that tells whether it holds points, in bytes."""
MAX_HEADER_LINES = 200
COMMENT_SIGNS = (b"#", b"//", b"%", b"!")
ELEMENT_ROW = re.compile(rb"\s*[A-Z][a-z]?\d{0,3}(?:\s+[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?){3}")
"""A row of a file of atoms: an element and three coordinates."""


class TextHead(NamedTuple):
    """What precedes the rows of numbers of a text file."""

    start: int
    """Offset of the first row in bytes."""
    row: list[bytes]
    """Cells of the first row."""
    separator: bytes
    """Comma, semicolon or tab; a blank if there is none of them."""
    names: list[str]
    """Names of the columns; empty without a header."""
    num_points: int | None
    """Declared number of points."""


def find_table(content: bytes) -> TextHead | None:
    """Return the head of a text whose rows have at least three numbers, None for others."""
    names: list[str] = []
    count, offset = None, 3 if content.startswith(b"\xef\xbb\xbf") else 0
    for _ in range(MAX_HEADER_LINES):
        if not 0 <= offset < min(len(content), HEAD_BYTES):
            return None
        end = content.find(b"\n", offset)
        line = content[offset : end if end >= 0 else len(content)].strip(b" \r")
        separator = find_separator(line)
        cells = split_line(line, separator)
        has_comment = line.startswith(COMMENT_SIGNS)
        if not has_comment and _is_row(cells, names):
            return TextHead(offset, cells, separator, names, count)
        if len(cells) == 1 and cells[0].isdigit():
            count = int(cells[0])
        elif len(cells) > 1 or (cells and not has_comment):
            names = _decode(split_line(line.lstrip(b"#/%! "), separator))
        offset = end + 1 if end >= 0 else -1
    return None


def _is_row(cells: Sequence[bytes], names: Sequence[str]) -> bool:
    """Return whether three cells or more are numbers; texts are allowed in named columns only."""
    has_names = len(cells) == len(names) and has_point_names(names)
    is_row = has_names or all(_is_number(cell) or not cell for cell in cells)
    return is_row and sum(map(_is_number, cells)) >= 3


def find_separator(line: bytes) -> bytes:
    """Return the sign that separates the cells of a line: a semicolon, tab, comma or blank."""
    return next((sign for sign in (b";", b"\t", b",") if sign in line), b" ")


def split_line(line: bytes, separator: bytes) -> list[bytes]:
    """Return the cells of a line without quotes; separators inside quotes do not count."""
    if b'"' in line:
        line = re.sub(rb'"([^"]*)"', lambda m: re.sub(rb"[\s,;]", b"_", m[1]), line)
    if separator == b" ":
        return line.split()
    cells = [cell.strip() for cell in line.split(separator)]
    return cells[:-1] if not cells[-1] else cells  # rows may end with a separator


def _decode(cells: Sequence[bytes]) -> list[str]:
    return [cell.decode("utf-8", "replace") for cell in cells]


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return b"_" not in cell


def check_kind(content: bytes) -> None:
    """Raise ValueError for texts of other kinds: molecules, grids and marks in images."""
    lines = content[:4096].splitlines()[:12]
    if content[:64].lstrip().lower().startswith(b"ncols"):
        raise UnsupportedContentError("it is an ESRI grid of heights: convert it to points")
    if re.match(rb"\s*version:\s*\d+\s+n_points:", content[:64]):
        raise UnsupportedContentError("it has marks in an image, not points in space: remove it")
    rows = lines[2:] if len(lines) > 2 and lines[0].strip().isdigit() else lines
    rows = [row for row in rows if row.strip()][:3]
    is_molecule = bool(rows) and all(map(ELEMENT_ROW.match, rows))
    if is_molecule or _has_atomic_numbers(lines):
        raise UnsupportedContentError(
            "it is a file of atoms (chemistry), not a point cloud: remove it, or write its "
            "coordinates alone, one point per line"
        )


def _has_atomic_numbers(lines: Sequence[bytes]) -> bool:
    """Return whether rows `number x y z` follow the number of atoms and a line of text."""
    if len(lines) < 3 or not lines[0].strip().isdigit():
        return False
    second, rows = lines[1].split(), [line.split() for line in lines[2:] if line.strip()]
    is_text = len(second) < 3 or not all(map(_is_number, second))
    has_numbers = all(len(row) == 4 and row[0].isdigit() and 0 < int(row[0]) < 119 for row in rows)
    names = {word.lower().strip(b"/#") for word in second}
    return is_text and bool(rows) and has_numbers and not {b"x", b"y"} <= names


def is_point_text(path: Path) -> bool:
    """Return whether a text file begins with rows of at least three numbers, as of points.

    Reads its first kilobytes only. Files of a single matrix, such as a pose, are none.
    """
    with path.open("rb") as file:
        content = file.read(SNIFFED_BYTES)
    if b"\0" in content:
        return False
    try:
        check_kind(content)
    except UnsupportedContentError:
        return False
    if (head := find_table(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))) is None:
        return False
    num_cells, width = len(content.split()[:17]), len(head.row)
    is_matrix = not head.names and (width, num_cells) in ((3, 9), (4, 12), (4, 16))
    has_other_names = len(head.names) == width and not (
        has_point_names(head.names) or has_degrees(head.names)
    )
    return not is_matrix and not has_other_names
