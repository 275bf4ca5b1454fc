"""Parse the header of .ply files, and check that its counts fit the size of the file."""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_HEADER_BYTES = 2**20
"""Maximum size of a header, in bytes."""
TYPES = {
    "char": "i1", "uchar": "u1", "int8": "i1", "uint8": "u1", "short": "i2", "ushort": "u2",
    "int16": "i2", "uint16": "u2", "int": "i4", "uint": "u4", "int32": "i4", "uint32": "u4",
    "int64": "i8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
"""NumPy's codes of the number types in .ply files."""
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
"""Byte order of each format, empty for text."""
HEADER_END = re.compile(rb"[\r\n][ \t]*end_header[ \t]*(\r\n|\n|\r)")
TEXTURE_COMMENT = re.compile(r"\s*(?:comment|obj_info)\s+TextureFile\s+(.*\S)", re.IGNORECASE)


class PlyProperty(NamedTuple):
    """One number, or one list of numbers, of each element."""

    name: str
    code: str
    """Type of the number, or of each number of the list."""
    count_code: str | None = None
    """Type of the length of the list."""


class PlyElement(NamedTuple):
    """Declaration of all elements of one name."""

    name: str
    number: int
    """Declared number of elements of this name."""
    properties: tuple[PlyProperty, ...] = ()


class PlyHeader(NamedTuple):
    """Declarations of a file."""

    byte_order: str
    """`<` or `>`; empty for text."""
    elements: tuple[PlyElement, ...]
    textures: tuple[str, ...]
    """Names of texture files, from comments."""
    num_bytes: int
    """Place of the first byte after the header."""


def parse_header(content: bytes) -> PlyHeader:
    """Parse a header; its lines may end in LF, CR LF, or CR, also mixed.

    Raises ValueError for wrong headers and counts that do not fit the size of the file.
    """
    end = HEADER_END.search(content, 0, MAX_HEADER_BYTES)
    if not content.startswith(b"ply") or end is None:
        raise ValueError("it has no PLY header")
    head, num_bytes = content[: end.start()], end.end()
    if end[1] == b"\r\n" and b"\n" not in head:  # all lines end in CR: LF is the first byte of data
        num_bytes -= 1
    lines = _decode(head).splitlines()[1:]
    formats = [line.split()[1:2] for line in lines if line.split()[:1] == ["format"]]
    if not formats or not formats[0] or formats[0][0] not in FORMATS:
        raise ValueError(f"its format is none of {', '.join(FORMATS)}")
    textures = [found[1] for line in lines if (found := TEXTURE_COMMENT.match(line))]
    elements = _parse_elements(lines, len(content))
    header = PlyHeader(FORMATS[formats[0][0]], elements, tuple(textures), num_bytes)
    _check_size(header, len(content) - num_bytes)
    return header


def _parse_elements(lines: Sequence[str], num_bytes: int) -> tuple[PlyElement, ...]:
    elements = list[PlyElement]()
    for words in map(str.split, lines):
        if words[:1] == ["element"]:
            elements.append(_parse_element(words, num_bytes))
        elif words[:1] == ["property"] and elements:
            properties = (*elements[-1].properties, _parse_property(words))
            elements[-1] = elements[-1]._replace(properties=properties)
    return tuple(elements)


def _decode(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError:
        return head.decode("latin1")


def _parse_element(words: list[str], num_bytes: int) -> PlyElement:
    if len(words) < 3 or not words[2].isdecimal() or int(words[2]) > num_bytes:
        raise ValueError(f"its header declares {' '.join(words[2:3])} of {' '.join(words[1:2])!r}")
    return PlyElement(words[1], int(words[2]))


def _parse_property(words: list[str]) -> PlyProperty:
    is_list = words[1:2] == ["list"]
    types = words[2:4] if is_list else words[1:2]
    if len(words) != 3 + 2 * is_list or not all(name in TYPES for name in types):
        raise ValueError(f"its header declares a property as {' '.join(words)!r:.100}")
    codes = [TYPES[name] for name in types]
    if is_list and codes[0][0] == "f":
        raise ValueError(f"its header declares the length of {words[-1]!r} as {types[0]}")
    return PlyProperty(words[-1], codes[-1], codes[0] if is_list else None)


def _check_size(header: PlyHeader, num_bytes: int) -> None:
    """Raise ValueError where a file is too small for all its elements with empty lists."""
    minimum = 0
    for element in header.elements:
        codes = [item.count_code or item.code for item in element.properties]
        # In a text a number takes at least a digit and a separator.
        sizes = [int(code[1:]) if header.byte_order else 2 for code in codes]
        if element.number and not sizes:
            raise ValueError(f"its header declares {element.number} of {element.name!r}")
        minimum += element.number * sum(sizes)
    if minimum > num_bytes + 1:  # the last line may lack its end
        raise ValueError(f"its header declares {minimum} bytes or more, it has {num_bytes}")
