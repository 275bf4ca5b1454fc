"""Read the JSON of .gltf and .glb files, and the buffers that it refers to."""

import json
import struct
from pathlib import Path
from typing import Any

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.gltf.extensions import check_required_extensions
from recon.data.io.meshes.gltf.uris import decode_data_uri, decode_file_name
from recon.data.io.meshes.surface import MAX_MESH_BYTES
from recon.data.io.meshes.textures import TextureLoader

MAX_JSON_PARTS = 2**22
"""Maximum number of values in the JSON of a file; each takes about a hundred bytes of memory."""
MAX_UNPACK_RATIO, MIN_UNPACK_LIMIT = 100, 2**22
"""Vertices and triangles of a scene: at most the larger of this ratio to bytes, and this number."""


class GltfFile:
    """The JSON of a file, its buffers and its notes.

    Raises ValueError for a file that is damaged, is of another version of glTF or needs an
    extension that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.images, self.notes = path, TextureLoader(path), list[str]()
        content = path.read_bytes()
        is_binary = content[:4] == b"glTF"
        text, self._chunk = _split_chunks(content) if is_binary else (content, None)
        self.json = _parse_json(text)
        check_required_extensions(self.json.get("extensionsRequired", ()))
        self._buffers: dict[int, memoryview] = {}
        self.num_bytes, self.num_values = len(content), 0

    def item(self, kind: str, index: object) -> dict[str, Any]:
        """Return an element of a list of the JSON, such as `nodes`; raise ValueError without it."""
        items = self.json.get(kind, [])
        if not isinstance(index, int) or not 0 <= index < len(items):
            raise ValueError(f"it refers to number {index!r:.50} of its {len(items)} {kind}")
        item = items[index]
        if not isinstance(item, dict):
            raise ValueError(f"number {index} of its {kind} is not an object")
        return item

    def add_note(self, note: str) -> None:
        """Add a note that several elements may cause."""
        if note not in self.notes:
            self.notes.append(note)

    def reserve(self, num_values: int) -> None:
        """Count vertices or triangles that are to be built; raise ValueError for too many."""
        self.num_values += num_values
        limit = max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * self.num_bytes)
        if self.num_values > limit:
            raise UnsupportedContentError(
                f"its {self.num_bytes:,} bytes describe {self.num_values:,} vertices and "
                f"triangles, the maximum is {limit:,}: repeat meshes less often"
            )

    def read_view(self, index: object) -> memoryview:
        """Return the bytes of a buffer view; raise ValueError if its buffer is shorter."""
        view = self.item("bufferViews", index)
        buffer = self._read_buffer(view["buffer"])
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if start < 0 or length < 0 or start + length > len(buffer):
            raise ValueError(
                f"a view of bytes {start} to {start + length} exceeds its buffer of {len(buffer)}"
            )
        return buffer[start : start + length]

    def read_image(self, image: dict[str, Any]) -> bytes | None:
        """Return the content of an image's file; None if it is missing."""
        uri = image.get("uri")
        if uri is None:
            return bytes(self.read_view(image["bufferView"]))
        if uri.startswith("data:"):
            return decode_data_uri(uri)
        path = self.images.find(decode_file_name(uri)) or self.images.find(uri)
        return None if path is None else self.images.read_bytes(path)

    def _read_buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            self._buffers[index] = self._load_buffer(index)
        return self._buffers[index]

    def _load_buffer(self, index: int) -> memoryview:
        buffer = self.item("buffers", index)
        uri, length = buffer.get("uri"), buffer["byteLength"]
        if uri is not None:
            content = memoryview(self._read_buffer_uri(uri))
        elif index == 0 and self._chunk is not None:
            content = self._chunk
        else:
            raise ValueError(f"its buffer {index} has no data")
        if length > len(content):
            raise ValueError(f"its buffer {index} has {len(content)} of {length} bytes")
        return content[:length]

    def _read_buffer_uri(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            return decode_data_uri(uri)
        name = decode_file_name(uri)
        limit = MAX_MESH_BYTES - self.num_bytes
        path = self.images.find(name, limit) or self.images.find(uri, limit)
        if path is None:
            raise UnsupportedContentError(
                f"its file {name!r:.200} is missing: copy it beside this one"
            )
        self.num_bytes += path.stat().st_size
        return path.read_bytes()


def _split_chunks(content: bytes) -> tuple[bytes, memoryview | None]:
    """Return the JSON of a .glb file and its binary chunk."""
    if len(content) < 20:
        raise ValueError("it has no GLB header")
    version, total = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise UnsupportedContentError(f"it is binary glTF {version}: convert it to glTF 2.0")
    if total > len(content):
        raise ValueError(f"its header declares {total} bytes, it has {len(content)}")
    chunks, start = list[tuple[bytes, memoryview]](), 12
    while start + 8 <= total and len(chunks) < 2:
        length, kind = struct.unpack_from("<I4s", content, start)
        if start + 8 + length > total:
            raise ValueError(f"a chunk declares {length} bytes, {total - start - 8} follow")
        chunks.append((kind, memoryview(content)[start + 8 : start + 8 + length]))
        start += 8 + length
    if chunks[0][0] != b"JSON":
        raise ValueError("its first chunk is not JSON")
    has_buffer = len(chunks) > 1 and chunks[1][0] == b"BIN\0"
    return bytes(chunks[0][1]), chunks[1][1] if has_buffer else None


def _parse_json(text: bytes) -> dict[str, Any]:
    count = sum(text.count(symbol) for symbol in (b",", b"[", b"{"))
    if count > MAX_JSON_PARTS:
        raise UnsupportedContentError(
            f"its JSON has {count:,} values, the maximum is {MAX_JSON_PARTS:,}: merge nodes and "
            "meshes"
        )
    content = json.loads(text.decode("utf-8-sig"))
    if not isinstance(content, dict) or not isinstance(content.get("asset"), dict):
        raise ValueError("its JSON does not describe a glTF scene")
    version = str(content["asset"].get("version"))
    if not version.startswith("2."):
        raise UnsupportedContentError(f"it is glTF {version!r:.20}: convert it to glTF 2.0")
    return content
