"""Convert tables whose columns are named by the file, by an option, or by what they hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from recon.data.io.arrays import read_npy, read_npz
from recon.data.io.file_checks import UnsupportedContentError, wrap_read_errors
from recon.data.io.points.columns import select_columns
from recon.data.io.points.layouts import COLOR_NAMES, NORMAL_NAMES, name_columns
from recon.data.io.points.table import PointTable, ReadOptions

MAX_COLUMNS = 256
"""Maximum number of columns of a cloud."""
MAX_COLUMNS_OF_FEW_ROWS = 12
"""An array with more columns than this and than rows is treated as transposed."""
MIN_BINARY_BYTES = 12
"""Size of one point of float32 numbers."""
SKIPPED_NAMES = ("_", "skip")
"""Names of columns to ignore in `ReadOptions.columns`."""
COLUMN_PRESETS: Mapping[str, tuple[str, ...]] = {
    "kitti": ("x", "y", "z", "intensity"),
    "semantickitti": ("x", "y", "z", "intensity"),
    "nuscenes": ("x", "y", "z", "intensity", "ring"),
}
"""Names of the columns of known data sets, for `ReadOptions.columns`."""


def resolve_columns(columns: Sequence[str]) -> list[str]:
    """Return the names of columns, or those of a preset, see `COLUMN_PRESETS`."""
    names = [columns] if isinstance(columns, str) else [str(name) for name in columns]
    if len(names) == 1 and names[0].lower() in COLUMN_PRESETS:
        return [*COLUMN_PRESETS[names[0].lower()]]
    return names


def split_columns(
    table: Num[np.ndarray, "n c"],
    source: str,
    options: ReadOptions,
    names: Sequence[str] | None = None,
) -> PointTable:
    """Split a table by the names of its columns: of the option, the file's `names`, or its values.

    Raises ValueError that names `source` for transposed tables and uncertain columns.
    """
    _check_shape(table, source)
    if options.columns is not None:
        return _name_by_option(table, source, resolve_columns(options.columns))
    if names is not None:
        return select_columns(
            {name: table[:, place] for place, name in enumerate(number_duplicates(names))}, source
        )
    if table.shape[1] == 3:
        return PointTable(table)
    with wrap_read_errors(source, "cloud"):
        found = name_columns(table)
    normals, colors = (
        table[:, found.index(group[0]) : found.index(group[0]) + 3] if group[0] in found else None
        for group in (NORMAL_NAMES, COLOR_NAMES)
    )
    used = {*"xyz", *NORMAL_NAMES, *COLOR_NAMES}
    extra = {name: table[:, place] for place, name in enumerate(found) if name not in used}
    note = f"its columns without names are read as {' '.join(found)}"
    return PointTable(table[:, :3], normals, colors, extra, notes=(note,))


def _check_shape(table: Num[np.ndarray, "n c"], source: str) -> None:
    num_rows, num_columns = table.shape
    if num_columns < 3:
        raise ValueError(
            f"{source}: has {num_columns} columns, expected x, y and z: it has no coordinates of "
            "points, export it again or remove it"
        )
    few = 9 if num_rows in (3, 6) else max(MAX_COLUMNS_OF_FEW_ROWS, num_rows)
    if num_columns > min(few, MAX_COLUMNS):
        raise ValueError(
            f"{source}: has shape {table.shape}, expected (N, 3) or a few more columns: transpose "
            "it, one point a row"
        )


def _name_by_option(table: Num[np.ndarray, "n c"], source: str, names: Sequence[str]) -> PointTable:
    if len(names) != table.shape[1]:
        raise ValueError(
            f"{source}: has {table.shape[1]} columns, the option columns names {len(names)}: "
            f"{','.join(names)}: name each column, with _ for those to ignore"
        )
    used = {
        name: table[:, place]
        for place, name in enumerate(number_duplicates(names))
        if names[place].lower() not in SKIPPED_NAMES
    }
    return select_columns(used, source)


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Return names with a number after each that was there before."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return unique


def convert_array(array: Any, source: str, options: ReadOptions) -> PointTable:
    """Convert an array (N, c), or a structured one; raise ValueError that names `source`."""
    if not isinstance(array, np.ndarray):
        return PointTable(array)
    if array.dtype.names:
        fields = {name: array[name] for name in array.dtype.names}
        return select_arrays(fields, source, options)
    is_table = array.ndim == 2 and array.dtype.kind in "iuf" and len(array)
    return split_columns(array, source, options) if is_table else PointTable(array)


def select_arrays(content: Mapping[str, Any], source: str, options: ReadOptions) -> PointTable:
    """Find coordinates, normals, colors and others among named arrays."""
    # Only plain arrays: converting other objects of a pickle could take time without limit.
    arrays = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim
    }
    structured = [v for v in content.values() if isinstance(v, np.ndarray) and v.dtype.names]
    if not arrays and len(structured) == 1:
        return convert_array(structured[0], source, options)
    table = select_columns(arrays, source, "arrays")
    if np.ndim(table.points) != 2 or table.points.shape[1] == 3:
        return table
    split = convert_array(table.points, source, options)
    return split._replace(
        normals=split.normals if table.normals is None else table.normals,
        colors=split.colors if table.colors is None else table.colors,
        extra={**split.extra, **table.extra},
    )


def read_npy_points(path: Path, options: ReadOptions) -> PointTable:
    """Read the cloud of a .npy file: an array, a structured array, or a dictionary of arrays."""
    content = read_npy(path)
    if isinstance(content, dict):
        return select_arrays(content, str(path), options)
    return convert_array(content, str(path), options)


def read_npz_points(path: Path, options: ReadOptions) -> PointTable:
    """Read the cloud of a .npz file: arrays by name."""
    return select_arrays(read_npz(path), str(path), options)


def read_binary_points(path: Path, options: ReadOptions) -> PointTable:
    """Read a .bin file of float32 numbers, whose columns an option must name."""
    if options.columns is None:
        raise ValueError(
            f"{path}: a .bin file does not tell its columns: name them with the option columns, "
            f"as [x,y,z,intensity] or one of [{'], ['.join(COLUMN_PRESETS)}]"
        )
    names = resolve_columns(options.columns)
    row_bytes = 4 * len(names)
    if excess := path.stat().st_size % row_bytes:
        raise UnsupportedContentError(
            f"{path}: its size is not a multiple of {row_bytes} bytes, {len(names)} float32 "
            f"numbers {' '.join(names)}: {excess} bytes are left: name its columns as they are"
        )
    table = np.fromfile(path, "<f4").reshape(-1, len(names))
    return split_columns(table, str(path), options)


def is_point_binary(path: Path) -> bool:
    """Return whether a .bin file begins with float32 numbers in the range of coordinates."""
    if (size := path.stat().st_size) < MIN_BINARY_BYTES or size % 4:
        return False
    numbers = np.fromfile(path, "<f4", 256)
    with np.errstate(invalid="ignore"):
        is_usual = (numbers == 0) | ((np.abs(numbers) > 1e-6) & (np.abs(numbers) < 1e7))
    return bool(is_usual.all() and numbers.any())
