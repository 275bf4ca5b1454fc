"""Write small glTF files, with every array in a buffer view of its own."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
FACES = np.array([0, 1, 2, 0, 2, 3], "<u2")


class Gltf:
    """A scene under construction; `json` can be changed freely before it is written."""

    def __init__(self, **top: Any) -> None:
        self.content = b""
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], **top}
        self.json["bufferViews"] = []

    def view(self, content: bytes, **fields: Any) -> int:
        self.content += bytes(-len(self.content) % 4)
        self.json["bufferViews"].append(
            {
                "buffer": 0,
                "byteOffset": len(self.content),
                "byteLength": len(content),
                **fields,
            }
        )
        self.content += content
        return len(self.json["bufferViews"]) - 1

    def array(self, values: object, dtype: str = "<f4", **fields: Any) -> int:
        """Store an array; rows of bytes or shorts are padded to four bytes, as glTF demands."""
        rows = np.asarray(values, dtype)
        table = rows.reshape(len(rows), -1)
        row_bytes = table.shape[1] * table.itemsize
        view: dict[str, Any] = {}
        content = table.tobytes()
        if row_bytes % 4 and table.shape[1] > 1:
            padding = np.zeros((len(table), -row_bytes % 4), "u1")
            content = np.concatenate([table.view("u1").reshape(len(table), -1), padding], 1)
            content, view = content.tobytes(), {"byteStride": row_bytes + padding.shape[1]}
        return self.accessor(
            rows.dtype.str[-2:],
            KINDS[table.shape[1]],
            len(rows),
            bufferView=self.view(content, **view),
            **fields,
        )

    def accessor(self, dtype: str, kind: str, count: int, **fields: Any) -> int:
        self.json["accessors"].append(
            {"componentType": TYPES[dtype], "type": kind, "count": count, **fields}
        )
        return len(self.json["accessors"]) - 1

    def square(self, **fields: Any) -> dict[str, Any]:
        """Return a primitive of two triangles, of area 1; `attributes` are added."""
        attributes = {"POSITION": self.array(SQUARE), **fields.pop("attributes", {})}
        return {"attributes": attributes, "indices": self.array(FACES, "<u2"), **fields}

    def mesh(self, *primitives: dict[str, Any], **fields: Any) -> int:
        self.json.setdefault("meshes", []).append({"primitives": [*primitives], **fields})
        return len(self.json["meshes"]) - 1

    def image(self, pixels: np.ndarray | Image.Image, kind: str = "PNG") -> int:
        picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
        file = io.BytesIO()
        picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
        view = self.view(file.getvalue())
        images = self.json.setdefault("images", [])
        images.append({"bufferView": view, "mimeType": f"image/{kind.lower()}"})
        return len(images) - 1

    def write(self, path: Path, **top: Any) -> Path:
        """Write the scene to a .glb file, or to a .gltf file with a .bin file."""
        self.json.setdefault("nodes", [{"mesh": 0}])
        self.json.setdefault("scenes", [{"nodes": [*range(len(self.json["nodes"]))]}])
        scene = {**self.json, "buffers": [{"byteLength": len(self.content)}], **top}
        if path.suffix == ".gltf":
            scene["buffers"][0].setdefault("uri", f"{path.stem}.bin")
            (path.parent / f"{path.stem}.bin").write_bytes(self.content)
            path.write_text(json.dumps(scene))
        else:
            path.write_bytes(pack_glb(json.dumps(scene).encode(), self.content))
        return path


def pack_glb(text: bytes, content: bytes | None = None) -> bytes:
    """Return a .glb file of JSON and a binary chunk."""
    chunks = pack_chunk(b"JSON", text + b" " * (-len(text) % 4))
    if content is not None:
        chunks += pack_chunk(b"BIN\0", content + bytes(-len(content) % 4))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def pack_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content


def write_square(path: Path, **primitive: Any) -> Path:
    """Write a file of one square."""
    gltf = Gltf()
    gltf.mesh(gltf.square(**primitive))
    return gltf.write(path)
