"""Parse texts of numbers into arrays, without a loop over lines."""

import codecs
import re
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

SPACE = 32
"""Bytes up to this one separate words."""
NOT_A_NUMBER = re.compile(rb"[-+]?(?:nan\(\w*\)|[-+]?1\.#\w+)", re.IGNORECASE)
"""What some C libraries write for NaN."""


def parse_numbers(text: bytes, dtype: type = np.float64) -> np.ndarray:
    """Parse numbers that are separated by white space, (n,).

    Raises ValueError that shows the first word that is not a number of this type.
    """
    if not text or text.isspace():
        return np.empty(0, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text, dtype, sep=" ")
        except (DeprecationWarning, ValueError):
            if dtype is np.float64 and (replaced := NOT_A_NUMBER.sub(b"nan", text)) != text:
                return parse_numbers(replaced)
            raise ValueError(_find_wrong_word(text, dtype)) from None


def _find_wrong_word(text: bytes, dtype: type) -> str:
    convert = float if dtype is np.float64 else int
    for word in text.split():
        try:
            convert(word)
        except ValueError:
            return f"{word.decode('utf-8', 'replace')!r:.50} is not a number"
    return "it has numbers that are too large"


def as_bytes(text: bytes) -> UInt8[np.ndarray, " n"]:
    """Return a text as an array of bytes that ends in a line end."""
    return np.frombuffer(text + b"\n", np.uint8)


def find_words(data: UInt8[np.ndarray, " n"]) -> Int[np.ndarray, " w"]:
    """Return the place of the first byte of each word."""
    is_space = data <= SPACE
    is_start = ~is_space
    is_start[1:] &= is_space[:-1]
    return np.flatnonzero(is_start)


def count_words(
    data: UInt8[np.ndarray, " n"], words: Int[np.ndarray, " w"]
) -> Int[np.ndarray, " m"]:
    """Count the words of each line that has any; `words` are the places from `find_words`."""
    ends = np.searchsorted(words, np.flatnonzero(data == 10))
    counts = np.diff(ends, prepend=0)
    return counts[counts > 0]


def remove_comments(text: bytes) -> bytes:
    """Remove everything from a number sign to the end of its line, but keep `1.#IND` and such."""
    return re.sub(rb"(?<!\d\.)#[^\r\n]*", b"", text) if b"#" in text else text


def read_text(path: Path) -> bytes:
    """Read a text file as UTF-8 without a byte order mark; UTF-16 is converted."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    return content.removeprefix(codecs.BOM_UTF8)


def range_each(
    starts: Int[np.ndarray, " n"], counts: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """Return the places from each start on, as many as its count, one after another."""
    first = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(starts - first, counts)
