"""Read the point clouds of PCL, .pcd files."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8, UInt32

from recon.data.io.file_checks import UnsupportedContentError, wrap_read_errors
from recon.data.io.points.columns import find_names
from recon.data.io.points.pcd_header import PcdField, PcdHeader, read_header
from recon.data.io.points.table import PointTable, ReadOptions

PACKED_COLORS = ("rgb", "rgba")
"""Names of fields that hold red, green and blue in the bytes of one 32-bit value."""
PADDING = "_"
"""Name of fields that only fill space."""


def read_pcd(path: Path, options: ReadOptions) -> PointTable:
    """Read all points of a .pcd file; raise ValueError that names the file.

    Organized clouds are read row by row. As in PCL, the viewpoint of the header is not applied.
    """
    with wrap_read_errors(path, "PCD file"):
        header = read_header(path)
        columns, notes = _read_columns(path, header)
        table = select_pcl_fields(columns)
    return table._replace(notes=notes)


def select_pcl_fields(columns: Mapping[str, Num[np.ndarray, " n"]]) -> PointTable:
    """Find coordinates, normals and colors among fields with the names that PCL and ROS use.

    Raises ValueError without fields x, y and z.
    """
    rest = dict(columns)
    if not {"x", "y", "z"} <= set(rest):
        raise UnsupportedContentError(
            f"it has the fields {', '.join(rest)!s:.200}, not x, y and z: rename the coordinates, "
            "or choose a file of points, not of features"
        )
    points = np.stack([rest.pop(axis) for axis in "xyz"], 1)
    normals = _take_columns(rest, "normals")
    colors: np.ndarray | None = None
    for name in PACKED_COLORS:
        packed = rest.get(name)
        if colors is None and packed is not None and packed.dtype.itemsize == 4:
            colors, alpha = unpack_colors(rest.pop(name))
            if name == "rgba" and alpha.any() and (alpha != 255).any():
                rest["alpha"] = alpha
    if colors is None:
        colors = _take_columns(rest, "colors")
    return PointTable(points, normals, colors, extra=rest)


def _take_columns(columns: dict[str, Any], field: str) -> np.ndarray | None:
    """Remove the columns of a field, and return them as (n, 3); None without them."""
    names = find_names(columns, field)
    return np.stack([columns.pop(name) for name in names], 1) if names else None


def unpack_colors(
    packed: Num[np.ndarray, " n"],
) -> tuple[UInt8[np.ndarray, "n 3"], UInt8[np.ndarray, " n"]]:
    """Split 32-bit values, integers or floats of the same bits, into RGB (n, 3) and alpha (n,)."""
    native = packed.astype(packed.dtype.newbyteorder("="), copy=False)
    bits: UInt32[np.ndarray, " n"] = np.ascontiguousarray(native).view(np.uint32)
    rgb = np.stack([bits >> 16, bits >> 8, bits], 1) & 255
    return rgb.astype(np.uint8), (bits >> 24).astype(np.uint8)


def _read_columns(path: Path, header: PcdHeader) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return all values by the name of their field, and notes; fields of padding are left out."""
    notes: tuple[str, ...] = ()
    if header.encoding == "ascii":
        values, notes = _read_text(path, header)
    elif header.encoding == "binary":
        values = _read_rows(path, header)
    else:
        values = _read_compressed(path, header)
    columns: dict[str, np.ndarray] = {}
    for field, array in zip(header.fields, values, strict=True):
        names = _name_values(field)
        if field.name == PADDING:
            continue
        if repeated := set(names) & set(columns):
            notes += (f"its field {min(repeated)} occurs several times: only the first is kept",)
        columns = {**dict(zip(names, array.T, strict=True)), **columns}
    order = [name for field in header.fields for name in _name_values(field)]
    return {name: columns[name] for name in order if name in columns}, notes


def _name_values(field: PcdField) -> list[str]:
    """Return a name for each value of a field."""
    if field.num_values == 1:
        return [field.name]
    if field.name == "rgb" and field.num_values == 3 and field.dtype.itemsize == 1:
        return ["r", "g", "b"]
    return [f"{field.name}_{number}" for number in range(field.num_values)]


def _read_rows(path: Path, header: PcdHeader) -> list[np.ndarray]:
    """Read points that are stored one after the other; return each field as (n, count)."""
    layout = np.dtype(
        [(str(n), field.dtype, (field.num_values,)) for n, field in enumerate(header.fields)]
    )
    rows = np.fromfile(path, layout, header.num_points, offset=header.num_bytes)
    return [rows[str(number)] for number in range(len(header.fields))]


def _read_compressed(path: Path, header: PcdHeader) -> list[np.ndarray]:
    """Read points that are stored field by field; return each field as (n, count)."""
    if not header.num_points:
        return [np.zeros((0, field.num_values), field.dtype) for field in header.fields]
    with path.open("rb") as file:
        file.seek(header.num_bytes)
        compressed_bytes, num_bytes = struct.unpack("<II", file.read(8))
        content = file.read(compressed_bytes)
    if compressed_bytes != num_bytes:  # otherwise it could not be compressed
        content = _decompress(path, content, num_bytes)
    arrays, offset = [], 0
    for field in header.fields:
        count = header.num_points * field.num_values
        array = np.frombuffer(content, field.dtype, count, offset).reshape(-1, field.num_values)
        arrays.append(array)
        offset += array.nbytes
    return arrays


def _decompress(path: Path, content: bytes, num_bytes: int) -> bytes:
    try:
        import lzf
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading compressed .pcd files needs python-neo-lzf: "
            "pip install 'recon-pointcloud[pcd]'"
        ) from error
    unpacked: bytes | None = lzf.decompress(content, num_bytes)
    if unpacked is None or len(unpacked) != num_bytes:
        raise ValueError("its compressed points are damaged")
    return unpacked


def _read_text(path: Path, header: PcdHeader) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Read points that are written as text; return each field as (n, count), and notes."""
    if not header.num_points:
        return [np.zeros((0, field.num_values), field.dtype) for field in header.fields], ()
    with path.open("rb") as file:
        file.seek(header.num_bytes)
        lines = [line for line in file.read().decode("latin1").splitlines() if line.strip()]
    if len(lines) < header.num_points:
        raise ValueError(f"it ends after {len(lines)} of {header.num_points} points")
    layout = [(str(n), _get_text_type(f), (f.num_values,)) for n, f in enumerate(header.fields)]
    rows = np.loadtxt(lines[: header.num_points], np.dtype(layout), comments="#", ndmin=1)
    arrays, notes = [], []
    for number, field in enumerate(header.fields):
        values = rows[str(number)]
        if field.dtype.kind in "iu" or field.name in PACKED_COLORS:
            values, count = _replace_nonfinite(values)
            if count:
                notes.append(f"its field {field.name} lacks {count:,} values: they are 0")
        arrays.append(values.astype(field.dtype))
    if len(lines) > header.num_points:
        notes.append(f"{len(lines) - header.num_points:,} lines follow its points: ignored")
    return arrays, tuple(notes)


def _replace_nonfinite(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return values with 0 in place of NaN and infinity, as integers if all are, and their count.

    Texts have them for missing colors, and also in fields of integers.
    """
    if values.dtype.kind != "f":
        return values, 0
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    # Negative numbers of unsigned fields keep their bits by way of int64.
    is_whole = (values == np.trunc(values)).all() and np.abs(values).max() < 2**53
    wide = values.astype(np.int64) if is_whole and values.dtype == np.float64 else values
    return wide, int((~finite).sum())


def _get_text_type(field: PcdField) -> np.dtype[Any]:
    """Return the type to parse a field's text by: exact, and open to numbers such as 1.0."""
    if field.dtype.itemsize < 8 and field.dtype.kind in "iu":
        return np.dtype(np.float64)
    return field.dtype.newbyteorder("=")
