"""Read the arrays of glTF files: all component types, strides and sparse values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.gltf.container import GltfFile
from recon.data.io.meshes.gltf.extensions import MESHOPT_EXTENSIONS

COMPONENT_TYPES: Mapping[int, np.dtype[Any]] = {
    5120: np.dtype("i1"),
    5121: np.dtype("u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
"""Type of the numbers for each `componentType`."""
NUM_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
"""Number of columns for each `type` that is read."""


def read_numbers(file: GltfFile, index: object) -> Num[np.ndarray, "n c"]:
    """Return the elements of an accessor as they are stored, (n, c).

    Raises ValueError if its numbers are not within its buffer.
    """
    accessor = file.item("accessors", index)
    dtype = COMPONENT_TYPES[accessor["componentType"]]
    count, width = accessor["count"], NUM_COMPONENTS[accessor["type"]]
    if accessor.get("bufferView") is None:
        file.reserve(_check_count(count))
        array = np.zeros((count, width), dtype)
    else:
        view = file.item("bufferViews", accessor["bufferView"])
        stride = view.get("byteStride", width * dtype.itemsize)
        array = _read_rows(file, accessor, count, (dtype, width, stride))
    if sparse := accessor.get("sparse"):
        array = _replace_rows(file, array, sparse)
    return array


def read_floats(file: GltfFile, index: object) -> Float[np.ndarray, "n c"]:
    """Return the elements of an accessor as fractions if they are normalized, (n, c).

    Floats stay float32; integers become float64.
    """
    return to_floats(
        read_numbers(file, index), is_normalized=is_normalized(file.item("accessors", index))
    )


def is_normalized(accessor: dict[str, Any]) -> bool:
    """Return whether the integers of an accessor are fractions of their largest value."""
    return bool(accessor.get("normalized", False))


def to_floats(array: Num[np.ndarray, "n c"], *, is_normalized: bool) -> Float[np.ndarray, "n c"]:
    """Convert integers to float64; normalized ones to [0, 1], or [-1, 1] if they are signed."""
    if array.dtype.kind == "f":
        return array
    if not is_normalized:
        return array.astype(np.float64)
    return np.maximum(array / float(np.iinfo(array.dtype).max), -1)


def read_indices(file: GltfFile, index: object) -> Int[np.ndarray, " n"]:
    """Return an accessor of single integers as int64, (n,)."""
    array = read_numbers(file, index)
    if array.dtype.kind != "u" or array.shape[1] != 1:
        raise ValueError(f"its indices are {array.shape[1]} x {array.dtype}")
    return array[:, 0].astype(np.int64)


def _check_count(count: object) -> int:
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"it declares {count!r:.50} values")
    return count


def _read_rows(
    file: GltfFile, source: dict[str, Any], count: int, layout: tuple[np.dtype[Any], int, int]
) -> Num[np.ndarray, "n c"]:
    """View `count` rows of (type, columns, bytes from row to row) in a buffer view."""
    dtype, width, stride = layout
    _refuse_meshopt(file, source["bufferView"])
    content, start = file.read_view(source["bufferView"]), source.get("byteOffset", 0)
    row_bytes = width * dtype.itemsize
    end = start + (_check_count(count) - 1) * stride + row_bytes if count else start
    if start < 0 or stride < row_bytes or end > len(content):
        raise ValueError(
            f"it declares {count} values in bytes {start} to {end} of a view of {len(content)}"
        )
    return np.ndarray((count, width), dtype, content, start, (stride, dtype.itemsize))


def _replace_rows(
    file: GltfFile, array: Num[np.ndarray, "n c"], sparse: dict[str, Any]
) -> Num[np.ndarray, "n c"]:
    """Return a copy of an array with the rows that a sparse accessor stores."""
    count, places, values = sparse["count"], sparse["indices"], sparse["values"]
    index_type = COMPONENT_TYPES[places["componentType"]]
    rows = _read_rows(file, places, count, (index_type, 1, index_type.itemsize))[:, 0]
    width = array.shape[1]
    new = _read_rows(file, values, count, (array.dtype, width, width * array.dtype.itemsize))
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(array):
        raise ValueError(f"a sparse accessor replaces row {rows.max()} of {len(array)}")
    array = array.copy()
    array[rows] = new
    return array


def _refuse_meshopt(file: GltfFile, index: object) -> None:
    """Raise ValueError for a compressed buffer view without an uncompressed copy."""
    view = file.item("bufferViews", index)
    buffer = file.item("buffers", view["buffer"])
    is_compressed = any(name in view.get("extensions", {}) for name in MESHOPT_EXTENSIONS)
    has_copy = buffer.get("uri") is not None or not buffer.get("extensions")
    if is_compressed and not has_copy:
        raise UnsupportedContentError(
            "it is compressed with meshopt, which is not supported: export it without compression"
        )
