"""Read the attributes and triangles of glTF primitives, also those that Draco compresses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from recon.data.io.meshes.gltf.accessors import (
    COMPONENT_TYPES,
    is_normalized,
    read_floats,
    read_indices,
    read_numbers,
    to_floats,
)
from recon.data.io.meshes.gltf.container import GltfFile
from recon.data.io.meshes.gltf.draco import DRACO, DracoData, decode_draco

POINTS, LINES, LINE_LOOP, LINE_STRIP, TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = range(7)
"""Values of a primitive's `mode`."""


class Attributes:
    """The vertex attributes of one primitive, by name."""

    def __init__(self, file: GltfFile, primitive: Mapping[str, Any]) -> None:
        self.file, self.names = file, primitive["attributes"]
        self.indices, self.mode = primitive.get("indices"), primitive.get("mode", TRIANGLES)
        extension = primitive.get("extensions", {}).get(DRACO)
        self._draco: DracoData | None = None
        if extension is not None:
            accessors = [file.item("accessors", i) for i in self._list_accessors()]
            declared = sum(int(accessor["count"]) for accessor in accessors)
            has_copy = all("bufferView" in accessor for accessor in accessors)
            self._draco = decode_draco(file, extension, declared, has_copy=has_copy)

        self.num_vertices = len(self.read_raw("POSITION"))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read_raw(self, name: str) -> Num[np.ndarray, "v c"]:
        """Return an attribute as it is stored, (v, c)."""
        if self._draco is not None and name in self._draco.attributes:
            # DracoPy returns 16-bit integers as floats.
            accessor = self.file.item("accessors", self.names[name])
            dtype = COMPONENT_TYPES[accessor["componentType"]]
            return self._draco.attributes[name].astype(dtype, copy=False)
        return read_numbers(self.file, self.names[name])

    def read(self, name: str) -> Float[np.ndarray, "v c"]:
        """Return an attribute as floats, (v, c); normalized integers are fractions."""
        if self._draco is None or name not in self._draco.attributes:
            return read_floats(self.file, self.names[name])
        accessor = self.file.item("accessors", self.names[name])
        return to_floats(self.read_raw(name), is_normalized=is_normalized(accessor))

    def read_faces(self, num_vertices: int) -> Int[np.ndarray, "f 3"]:
        """Return the triangles; raise ValueError for vertices that do not exist."""
        if self._draco is not None:
            faces = self._draco.faces
        else:
            corners = (
                np.arange(num_vertices)
                if self.indices is None
                else read_indices(self.file, self.indices)
            )
            if self.mode not in _TRIANGLES:
                raise ValueError(f"a primitive has the mode {self.mode!r:.50}")
            faces = _TRIANGLES[self.mode](corners)
        if faces.size and int(faces.max()) >= num_vertices:
            raise ValueError(f"a triangle has the vertex {faces.max()} of {num_vertices}")
        return faces

    def read_point_rows(self, num_vertices: int) -> Int[np.ndarray, " n"]:
        """Return the vertices that points use; raise ValueError for those that do not exist."""
        if self.indices is None:
            return np.arange(num_vertices)
        rows = np.unique(read_indices(self.file, self.indices))
        if rows.size and int(rows[-1]) >= num_vertices:
            raise ValueError(f"a point has the vertex {rows[-1]} of {num_vertices}")
        return rows

    def _list_accessors(self) -> list[int]:
        return [*self.names.values(), *([] if self.indices is None else [self.indices])]


def _split_list(corners: Int[np.ndarray, " n"]) -> Int[np.ndarray, "f 3"]:
    return corners[: len(corners) // 3 * 3].reshape(-1, 3)


def _split_strip(corners: Int[np.ndarray, " n"]) -> Int[np.ndarray, "f 3"]:
    """Return the triangles of a strip; every second one is turned so that all face one side."""
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], 1)
    faces[1::2] = faces[1::2, [0, 2, 1]]
    return faces


def _split_fan(corners: Int[np.ndarray, " n"]) -> Int[np.ndarray, "f 3"]:
    return np.stack([corners[1:-1], corners[2:], np.repeat(corners[:1], len(corners[2:]))], 1)


_TRIANGLES = {
    TRIANGLES: _split_list,
    TRIANGLE_STRIP: _split_strip,
    TRIANGLE_FAN: _split_fan,
}
