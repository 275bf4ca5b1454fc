"""Parse XML without entities, up to a size, with names that omit their namespaces."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Num

from recon.data.io.file_checks import UnsupportedContentError

MAX_XML_BYTES = 2**29
"""Maximum size of an XML file, in bytes; parsed it takes several times as much memory."""


def parse_xml(content: bytes) -> ET.Element:
    """Return the root of an XML file; raise ValueError for entities, damage and too many bytes."""
    _check_xml(content)
    root = ET.fromstring(content)
    for element in root.iter():
        element.tag = get_local_name(element.tag)
    return root


def iterate_xml(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield `start` and `end` of each element with full names, and `start-ns` of each namespace.

    See `parse_xml`. Namespaces are given as prefix and address.
    """
    _check_xml(content)
    yield from ET.iterparse(BytesIO(content), ("start", "end", "start-ns"))


def get_local_name(tag: object) -> str:
    """Return the name of an element without its namespace."""
    return str(tag).rpartition("}")[2]


def _check_xml(content: bytes) -> None:
    if len(content) > MAX_XML_BYTES:
        raise UnsupportedContentError(
            f"its XML has {len(content):,} bytes, the maximum is {MAX_XML_BYTES:,}: split it"
        )
    # Entities could expand to any size. UTF-16 puts a zero beside each letter.
    if b"<!ENTITY" in content[:65536].replace(b"\0", b"") or b"<!ENTITY" in content:
        raise UnsupportedContentError("its XML declares entities: export it without")


def parse_numbers(text: str | None, dtype: type[np.number]) -> Num[np.ndarray, " n"]:
    """Return the numbers of a text, separated by white space; raise ValueError for other words.

    Some programs write decimal commas in languages that have them.
    """
    text = text or ""
    if "," in text and "." not in text:
        text = text.replace(",", ".")
    return np.array(text.split(), dtype=dtype)
