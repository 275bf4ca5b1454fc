"""Check that .e57 files are as long as they declare, before a parser allocates their points."""

import io
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

from recon.data.io.file_checks import MAX_UNPACK_RATIO, MIN_UNPACK_LIMIT, UnsupportedContentError

HEADER = struct.Struct("<8sIIQQQQ")
"""Signature, version (2), file size, offset and size of the XML section, page size."""
CHECKSUM_BYTES = 4
"""Size of the checksum at the end of each page."""
MAX_XML_BYTES = 2**26
"""Maximum size of the XML section, in bytes."""
MAX_XML_DEPTH = 64
"""Maximum depth of nested XML elements."""


def check_e57(path: Path) -> None:
    """Raise ValueError for an .e57 file that declares more points than its size allows."""
    size = path.stat().st_size
    for points in _parse_xml(_read_xml(path, size)).iter("points"):
        count = points.get("recordCount", "0")
        if not count.isdecimal() or len(count) > 18:
            raise ValueError(f"it declares {count!s:.50} points")
        prototype = points.find("prototype")
        fields = [] if prototype is None else list(prototype)
        if int(count) * sum(map(_count_bits, fields)) > 8 * size:
            raise ValueError(f"it declares {count} points, it has {size} bytes")
        if 8 * len(fields) * int(count) > max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * size):
            raise UnsupportedContentError(
                f"its {count} points take more than {MAX_UNPACK_RATIO} times the file's size: "
                "split it, or write fewer fields"
            )


def _read_xml(path: Path, size: int) -> bytes:
    """Return the XML section, without the checksums of its pages."""
    with path.open("rb") as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or header[:8] != b"ASTM-E57":
            raise ValueError("it has no E57 header")
        _, _, _, file_bytes, offset, num_bytes, page_bytes = HEADER.unpack(header)
        if file_bytes > size or not CHECKSUM_BYTES < page_bytes <= 2**20:
            raise ValueError(f"its header declares {file_bytes} bytes, it has {size}")
        if num_bytes > min(size, MAX_XML_BYTES) or offset > size:
            raise ValueError(f"its header declares {num_bytes} bytes of XML, it has {size} bytes")
        first_page = offset - offset % page_bytes
        file.seek(first_page)
        pages = file.read((num_bytes // (page_bytes - CHECKSUM_BYTES) + 2) * page_bytes)
    content = b"".join(
        pages[start : start + page_bytes - CHECKSUM_BYTES]
        for start in range(0, len(pages), page_bytes)
    )
    return content[offset - first_page :][:num_bytes]


def _parse_xml(content: bytes) -> ET.Element:
    """Return the root of a document, whose elements have names without namespaces."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise UnsupportedContentError("its XML defines entities: export it without")
    depth, root = 0, None
    for event, element in ET.iterparse(io.BytesIO(content), events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAX_XML_DEPTH:
            raise ValueError(f"its XML is nested more than {MAX_XML_DEPTH} levels deep")
        element.tag = element.tag.rpartition("}")[2]
        root = element if root is None else root
    if root is None:
        raise ValueError("its XML is empty")
    return root


def _count_bits(field: ET.Element) -> int:
    """Return the bits that each value of a field takes at least."""
    kind = field.get("type")
    if kind == "Float":
        return 32 if field.get("precision") == "single" else 64
    if kind not in ("Integer", "ScaledInteger"):
        return 0
    low, high = (int(field.get(name, default)[:20]) for name, default in (
        ("minimum", str(-(2**63))), ("maximum", str(2**63 - 1))
    ))  # fmt: skip
    return math.ceil(math.log2(max(1, high - low + 1)))
