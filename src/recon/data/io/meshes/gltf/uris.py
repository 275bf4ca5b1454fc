"""Decode the URIs of buffers and images."""

import base64
from urllib.parse import unquote, unquote_to_bytes

from recon.data.io.file_checks import MAX_PATH_CHARS


def decode_data_uri(uri: str) -> bytes:
    """Return the content of a data URI (RFC 2397), in base64 or percent-encoded."""
    header, comma, content = uri.partition(",")
    if not comma:
        raise ValueError("a data URI has no content")
    if header.lower().endswith(";base64"):
        return base64.b64decode(unquote(content) if "%" in content else content)
    return unquote_to_bytes(content)


def decode_file_name(uri: str) -> str:
    """Return the relative path that a URI names; raise ValueError for a too long one."""
    if len(uri) > MAX_PATH_CHARS:
        raise ValueError(f"it refers to a file by a name of {len(uri):,} characters")
    return unquote(uri)
