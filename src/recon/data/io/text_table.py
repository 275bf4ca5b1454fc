"""Read tables of numbers from text files, with the separators and headers of many programs."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors

# Commas, semicolons and all bytes that are not ASCII text are separators: one file of S3DIS has
# such a byte instead of a blank.
SEPARATOR_TABLE = bytes(
    0x20 if code in b",;" or code >= 0x7F or (code < 0x20 and code not in b"\t\n\r") else code
    for code in range(256)
)

UNICODE_MINUS = re.compile(
    r"^(?![ \t]*(?:#|//)).*?([\u2010-\u2015\u2212\ufe63\uff0d])[.\d]", re.MULTILINE
)
"""Minus signs and dashes of Unicode before a number, outside comments."""


def read_table(path: Path, columns: Sequence[int] = ()) -> Float[np.ndarray, "n c"]:
    """Read a text file of numbers, separated by blanks, commas or semicolons, as float64.

    Up to two header lines, of column names or the number of points alone, are skipped. `columns`
    lists the accepted numbers of columns; by default, any. Raises ValueError that names the file
    and, where known, the line.
    """
    content = check_file(path).read_bytes()
    with wrap_read_errors(path, "table of numbers"):
        check_text(content)
        content = content.translate(SEPARATOR_TABLE)
        for _ in range(2):
            head, _, body = content.partition(b"\n")
            words = head.split()
            is_point_count = len(words) == 1 and len(body.partition(b"\n")[0].split()) > 1
            if head.lstrip()[:1] != b"#" and (is_point_count or not _are_numbers(words)):
                content = body
        if not content.strip():
            raise ValueError("no lines of numbers")
        table = np.loadtxt(io.BytesIO(content), comments=["#", "//"], ndmin=2)
    if not table.size:
        raise ValueError(f"{path}: has no lines of numbers: export it again")
    if columns and table.shape[1] not in columns:
        expected = " or ".join(map(str, columns))
        raise ValueError(
            f"{path}: has {table.shape[1]} columns, expected {expected}: copy it again or correct "
            "its columns"
        )
    return table


def check_text(content: bytes) -> None:
    """Raise ValueError for text whose numbers would be split or misread."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[1:20:2] == b"\0" * 10:
        raise UnsupportedContentError("its encoding is UTF-16: save it as UTF-8")
    if b"\0\0" in content:
        raise ValueError("it is not text: it has null bytes")
    if not content.isascii() and (char := _find_non_ascii_number(content)):
        raise UnsupportedContentError(
            f"it has digits or minus signs that are not ASCII, such as {char!a}: replace them"
        )
    line = next((x for x in content[:4096].split(b"\n") if re.match(rb"\s*[-+\d]", x)), b"")
    if len(re.findall(rb"(?<![\d,.])[-+]?\d+,\d+(?=[\s;]|$)", line)) > 1:
        raise UnsupportedContentError("it has decimal commas: write decimal points")


def _find_non_ascii_number(content: bytes) -> str | None:
    """Return the first non-ASCII digit or minus sign of a UTF-8 text, None without one.

    Bytes that are not UTF-8 act as separators, see `SEPARATOR_TABLE`.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    digit = next((char for char in set(text) if char.isdigit() and not char.isascii()), None)
    minus = UNICODE_MINUS.search(text) if digit is None else None
    return minus[1] if minus else digit


def _are_numbers(words: Sequence[bytes]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return bool(words)
