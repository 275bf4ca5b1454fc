"""Read the header of .pcd files, and check that the file's size fits it."""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.data.io.file_checks import MAX_UNPACK_RATIO, UnsupportedContentError

MAX_HEADER_BYTES = 2**16
"""Maximum size of a header, in bytes."""
MAX_POINT_VALUES = 2**14
"""Maximum number of values of a point, over all its fields."""
TYPE_KINDS = {"F": "f", "I": "i", "U": "u"}
"""numpy's kind of each TYPE."""
ENCODINGS = ("ascii", "binary", "binary_compressed")


class PcdField(NamedTuple):
    """A field of the points."""

    name: str
    dtype: np.dtype[Any]
    """Type of its values, little-endian."""
    num_values: int
    """Number of values in each point."""


class PcdHeader(NamedTuple):
    """Content of a header."""

    fields: tuple[PcdField, ...]
    num_points: int
    encoding: str
    """`ascii`, `binary` or `binary_compressed`."""
    num_bytes: int
    """Size of the header itself."""

    @property
    def point_bytes(self) -> int:
        """Size of one point without compression."""
        return sum(field.dtype.itemsize * field.num_values for field in self.fields)

    @property
    def num_values(self) -> int:
        """Number of values of one point."""
        return sum(field.num_values for field in self.fields)


def read_header(path: Path) -> PcdHeader:
    """Read a file's header and check it against the file's size; raise ValueError where wrong."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    entries, num_bytes = _split_lines(head)
    header = PcdHeader(
        _parse_fields(entries), _parse_num_points(entries), entries["DATA"][0].lower(), num_bytes
    )
    if header.encoding not in ENCODINGS:
        raise UnsupportedContentError(
            f"its points are stored as {header.encoding!r}: write it as {' or '.join(ENCODINGS)}"
        )
    if header.num_values > MAX_POINT_VALUES:
        raise UnsupportedContentError(
            f"each point has {header.num_values:,} values, the maximum is {MAX_POINT_VALUES:,}: "
            "write fewer fields"
        )
    _check_size(path, header)
    return header


def _split_lines(head: bytes) -> tuple[dict[str, list[str]], int]:
    """Return the words of each entry by its name, and the size of the header."""
    entries: dict[str, list[str]] = {}
    start = 0
    while (end := head.find(b"\n", start)) >= 0:
        words = head[start:end].decode("latin1").split("#")[0].split()
        start = end + 1
        if not words:
            continue
        name = {"COLUMNS": "FIELDS"}.get(words[0].upper(), words[0].upper())
        entries[name] = words[1:]
        if name == "DATA":
            break
    if not entries.get("FIELDS") or not entries.get("DATA"):
        raise ValueError("it has no PCD header with FIELDS and DATA")
    return entries, start


def _parse_fields(entries: dict[str, list[str]]) -> tuple[PcdField, ...]:
    """Return the fields; SIZE 4, TYPE F and COUNT 1 are the defaults of early versions."""
    names = entries["FIELDS"]
    sizes = entries.get("SIZE", ["4"] * len(names))
    types = entries.get("TYPE", ["F"] * len(names))
    counts = entries.get("COUNT", ["1"] * len(names))
    if not len(names) == len(sizes) == len(types) == len(counts):
        raise ValueError("its header has different numbers of FIELDS, SIZE, TYPE and COUNT")
    fields = []
    for name, size, kind, count in zip(names, sizes, types, counts, strict=True):
        valid_sizes = ("4", "8") if kind == "F" else ("1", "2", "4", "8")
        if kind not in TYPE_KINDS or size not in valid_sizes:
            raise ValueError(f"its field {name!r} has the type {kind} of {size} bytes")
        if not count.isdecimal():
            raise ValueError(f"its field {name!r} has the count {count}")
        # Some programs write 0 for the count of a single value.
        number = int(count[:9]) or 1
        fields.append(PcdField(name, np.dtype(f"<{TYPE_KINDS[kind]}{size}"), number))
    return tuple(fields)


def _parse_num_points(entries: dict[str, list[str]]) -> int:
    """Return POINTS, or else WIDTH times HEIGHT; raise ValueError if both are given and differ."""
    numbers = {}
    for name in ("WIDTH", "HEIGHT", "POINTS"):
        words = entries.get(name, [])
        if words and not words[0].isdecimal():
            raise ValueError(f"its header declares {name} {words[0]}")
        if words:
            numbers[name] = int(words[0][:19])
    grid = numbers["WIDTH"] * numbers.get("HEIGHT", 1) if "WIDTH" in numbers else None
    points = numbers.get("POINTS", grid)
    if points is None:
        raise ValueError("its header declares neither POINTS nor WIDTH")
    if grid is not None and grid != points:
        raise ValueError(f"its header declares {points} points, but WIDTH times HEIGHT is {grid}")
    return points


def _check_size(path: Path, header: PcdHeader) -> None:
    """Raise ValueError if the file is too short for the points that its header declares."""
    available = path.stat().st_size - header.num_bytes
    needed = header.num_points * header.point_bytes
    if header.encoding == "ascii":
        needed = 2 * header.num_points * header.num_values - 1  # a digit and a separator each
    elif header.encoding == "binary_compressed" and header.num_points:
        with path.open("rb") as file:
            file.seek(header.num_bytes)
            sizes = file.read(8)
        if len(sizes) < 8:
            raise ValueError("it ends before its compressed points")
        compressed, unpacked = struct.unpack("<II", sizes)
        if unpacked != needed:
            raise ValueError(f"its points unpack to {unpacked} bytes, its header declares {needed}")
        needed = 8 + max(compressed, math.ceil(unpacked / MAX_UNPACK_RATIO))
    if needed > available:
        raise ValueError(
            f"its header declares {header.num_points} points, which take {needed} bytes, it has "
            f"{available}"
        )
