"""Tables of numbers in text files, as people and programs of any kind write them."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import COPY_AGAIN_HINT, check_file, wrap_read_errors

# Commas and semicolons separate; so does each byte that no text holds, as one known file has it.
SEPARATOR_TABLE = bytes(
    0x20 if code in b",;" or code >= 0x7F or (code < 0x20 and code not in b"\t\n\r") else code
    for code in range(256)
)

UNICODE_MINUS = re.compile(
    r"^(?![ \t]*(?:#|//)).*?([\u2010-\u2015\u2212\ufe63\uff0d])[.\d]", re.MULTILINE
)
"""What typography writes before numbers; dashes in comments are none."""


def read_table(path: Path, columns: Sequence[int] = ()) -> Float[np.ndarray, "n c"]:
    """Read a text file of numbers, separated by blanks, commas or semicolons, float64.

    First lines of names, or of the number of points alone, are skipped. `columns` lists how many
    there may be. Raises ValueError that names the file and the line.
    """
    content = check_file(path).read_bytes()
    with wrap_read_errors(path, "table of numbers"):
        _check_text(content)
        content = content.translate(SEPARATOR_TABLE)
        for _ in range(2):
            head, _, rest = content.partition(b"\n")
            words = head.split()
            alone = len(words) == 1 and len(rest.partition(b"\n")[0].split()) > 1
            if head.lstrip()[:1] != b"#" and (alone or not _numbers(words)):
                content = rest
        if not content.strip():
            raise ValueError("no lines of numbers")
        table = np.loadtxt(io.BytesIO(content), comments=["#", "//"], ndmin=2)
    if not table.size:
        raise ValueError(f"{path}: has no lines of numbers: {COPY_AGAIN_HINT}")
    if columns and table.shape[1] not in columns:
        expected = " or ".join(map(str, columns))
        raise ValueError(
            f"{path}: has {table.shape[1]} columns, expected {expected}: {COPY_AGAIN_HINT}"
        )
    return table


def _check_text(content: bytes) -> None:
    """Raise ValueError for text whose numbers would be taken apart."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[1:20:2] == b"\0" * 10:
        raise ValueError("it is UTF-16: save it as UTF-8")
    if b"\0\0" in content:
        raise ValueError("it has bytes of zero, which no text has")
    if not content.isascii() and (found := _other_digits(content)):
        raise ValueError(f"it has digits or signs that are no plain ones, such as {found!a}")
    line = next((x for x in content[:4096].split(b"\n") if re.match(rb"\s*[-+\d]", x)), b"")
    if len(re.findall(rb"(?<![\d,.])[-+]?\d+,\d+(?=[\s;]|$)", line)) > 1:
        raise ValueError("it has decimal commas: write decimal points")


def _other_digits(content: bytes) -> str | None:
    """Find a digit, or a minus before one, of other script in UTF-8; no text's bytes separate."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    digit = next((char for char in set(text) if char.isdigit() and not char.isascii()), None)
    minus = UNICODE_MINUS.search(text) if digit is None else None
    return minus[1] if minus else digit


def read_column_names(path: Path) -> list[str]:
    """Return the names of columns that the first line of a text file gives; none without them."""
    with path.open("rb") as file:
        head = file.readline(4096).translate(SEPARATOR_TABLE)
    words = head.lstrip(b"#/ ").split()
    return [] if _numbers(words) else [word.decode("ascii", "replace") for word in words]


def _numbers(words: Sequence[bytes]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return bool(words)
