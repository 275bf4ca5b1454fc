"""Read points from .xyz, .txt, .csv, .asc and .pts files, with the headers of many programs."""

import io
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.points.columns import has_degrees, has_point_names
from recon.data.io.points.table import PointTable, ReadOptions
from recon.data.io.points.tables import split_columns
from recon.data.io.points.text_head import TextHead, check_kind, find_table
from recon.data.io.text_table import SEPARATOR_TABLE, check_text

TEXT_SUFFIXES = (".xyz", ".xyzn", ".xyzrgb", ".txt", ".csv", ".asc", ".pts")
SNIFFED_SUFFIXES = (".txt", ".csv", ".asc", ".pts")
"""Extensions of texts of any kind: folders have those that hold rows of numbers only."""
PTS_COLUMNS = {
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "r", "g", "b"),
    7: ("x", "y", "z", "intensity", "r", "g", "b"),
}
"""Columns of a .pts file that begins with the number of points."""


def read_text_points(path: Path, options: ReadOptions) -> PointTable:
    """Read rows of numbers, separated by blanks, commas, semicolons or tabs, as float64.

    Lines before the first row may name the columns or give the number of points. Columns of text
    are left out. Raises ValueError that names the file and, where known, the line.
    """
    content = check_file(path).read_bytes()
    with wrap_read_errors(path, "table of points"):
        check_text(content)
        check_kind(content)
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if (head := find_table(content)) is None:
            raise UnsupportedContentError(
                "it has no lines of numbers, at least x, y and z: export it again or remove it"
            )
        names = _match_names(head)
        body, count = _join_blocks(content[head.start :], head, path.suffix.lower())
        texts = _find_text_columns(head)
        table = _parse_rows(body, head, texts)
        if count is not None and len(table) < count:
            raise ValueError(f"it ends after {len(table)} of {count} points")
    names = [name for place, name in enumerate(names) if place not in texts]
    if not names and path.suffix.lower() == ".pts" and head.num_points is not None:
        names = [*PTS_COLUMNS.get(table.shape[1], ())]
    has_names = len(names) == table.shape[1] and (has_point_names(names) or has_degrees(names))
    found = split_columns(table, str(path), options, names if has_names else None)
    if texts:
        note = f"columns of text are left out: {', '.join(f'{place + 1}' for place in texts)}"
        found = found._replace(notes=(*found.notes, note))
    return found


def _match_names(head: TextHead) -> list[str]:
    """Return the names of the columns of a file; R leaves out that of the numbers of the rows."""
    names = [name or "index" for name in head.names]
    if len(names) == len(head.row) - 1 and has_point_names(names):
        return ["index", *names]
    return names


def _join_blocks(body: bytes, head: TextHead, suffix: str) -> tuple[bytes, int | None]:
    """Return the rows of all blocks of a .pts file, each with its number of points, and the sum."""
    if suffix != ".pts" or head.num_points is None:
        return body, head.num_points if suffix == ".pts" else None
    counts = [int(number) for number in re.findall(rb"^[ \t]*(\d+)[ \t]*$", body, re.MULTILINE)]
    if counts:
        body = re.sub(rb"^[ \t]*\d+[ \t]*$", b"", body, flags=re.MULTILINE)
    return body, head.num_points + sum(counts)


def _find_text_columns(head: TextHead) -> list[int]:
    def is_text(cell: bytes) -> bool:
        try:
            float(cell or b"nan")
        except ValueError:
            return True
        return False

    return [place for place, cell in enumerate(head.row) if is_text(cell)]


def _parse_rows(body: bytes, head: TextHead, texts: list[int]) -> Float[np.ndarray, "n c"]:
    """Parse rows of numbers; empty cells become NaN, and columns of text are left out."""
    comments = [sign for sign in ("#", "//") if sign.encode() in body] or None
    columns = [place for place in range(len(head.row)) if place not in texts] if texts else None
    if head.separator != b" " and (texts or _has_empty_cells(body, head.separator)):
        body = _fill_empty_cells(body, head.separator)
        return np.loadtxt(
            io.BytesIO(body), comments=comments, delimiter=head.separator.decode(),
            quotechar='"' if b'"' in body else None, usecols=columns, ndmin=2,
        )  # fmt: skip
    rows = io.BytesIO(body.translate(SEPARATOR_TABLE).replace(b'"', b" "))
    return np.loadtxt(rows, comments=comments, usecols=columns, ndmin=2)


def _has_empty_cells(body: bytes, sign: bytes) -> bool:
    if sign == b"\t":  # tabs align columns, as blanks do
        return False
    ends = (sign + sign, sign + b" " + sign, sign + b"\n", sign + b" \n", b"\n" + sign)
    return any(end in body for end in ends) or body.startswith(sign) or body.endswith(sign)


def _fill_empty_cells(body: bytes, separator: bytes) -> bytes:
    """Write nan into empty cells; a separator at the end of every row begins no cell."""
    sign = re.escape(separator)
    lines = body.strip(b"\n").split(b"\n")
    if all(line.rstrip(b" ").endswith(separator) for line in lines if line.strip()):
        body = b"\n".join(line.rstrip(b" ")[:-1] for line in lines)
    body = re.sub(rb"%s[ ]*(?=\n|$)" % sign, separator + b"nan", body)
    return re.sub(rb"(?m)(?:(?<=%s)|^)[ ]*(?=%s)" % (sign, sign), b"nan", body)
