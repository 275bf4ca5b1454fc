"""List the properties of points as named columns, and prepare them for the types of a format."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from recon.data.io.points.table import PointTable

AXES = ("x", "y", "z")
Columns = dict[str, np.ndarray]
"""Arrays of one value per point, by name, in the order to write them."""


def list_columns(
    table: PointTable, normal_names: Sequence[str], color_names: Sequence[str]
) -> Columns:
    """Return coordinates, normals, colors and all other properties of points, in this order.

    Another property of the name of one of these is renamed: `x` becomes `x_2`.
    """
    columns: Columns = dict(zip(AXES, np.asarray(table.points)[:, :3].T, strict=True))
    for names, values in ((normal_names, table.normals), (color_names, table.colors)):
        if values is not None:
            columns |= dict(zip(names, np.asarray(values)[:, :3].T, strict=True))
    taken = {*AXES, *normal_names, *color_names}
    for name, values in table.extra.items():
        columns[find_free_name(name, {*taken, *columns})] = values
    return columns


def find_free_name(name: str, taken: Collection[str], max_bytes: int | None = None) -> str:
    """Return a name that is not taken, by a number after it, of at most `max_bytes`."""
    short = name if max_bytes is None else _cut(name, max_bytes)
    number = 2
    while short in taken:
        end = f"_{number}"
        short = (name if max_bytes is None else _cut(name, max_bytes - len(end))) + end
        number += 1
    return short


def _cut(name: str, max_bytes: int) -> str:
    return name.encode()[:max_bytes].decode(errors="ignore")


def rename_columns(
    columns: Mapping[str, np.ndarray], max_bytes: int | None = None
) -> tuple[Columns, tuple[str, ...]]:
    """Return columns with short names without spaces, and a note on the changed ones."""
    renamed: Columns = {}
    changed = []
    for name, values in columns.items():
        plain = "_".join(name.split()).encode("ascii", "replace").decode() or "unnamed"
        plain = find_free_name(plain, renamed, max_bytes)
        renamed[plain] = values
        if plain != name:
            changed.append(f"{name!r} to {plain}")
    return renamed, (f"renamed {', '.join(changed)}",) if changed else ()


def fit_types(
    columns: Mapping[str, np.ndarray], holds_int64: bool
) -> tuple[Columns, tuple[str, ...]]:
    """Return columns of 8 to 32-bit integers, float32 and float64, and a note on rounded values.

    64-bit integers are kept where the format `holds_int64`, else become 32-bit ones where these
    are exact, or else float64. Booleans become uint8 and float16 becomes float32, which is exact.
    """
    fitted: Columns = {}
    rounded = []
    for name, values in columns.items():
        fitted[name] = fit_type(values, holds_int64)
        if values.dtype.kind in "iu" and fitted[name].dtype.kind == "f":
            if not np.array_equal(fitted[name].astype(values.dtype), values):
                rounded.append(name)
        elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
            rounded.append(name)
    notes = (f"rounded {', '.join(rounded)} to float64",) if rounded else ()
    return fitted, notes


def fit_type(values: np.ndarray, holds_int64: bool) -> np.ndarray:
    """Return values in the nearest type of a format; see `fit_types`."""
    dtype = values.dtype
    if dtype.kind == "b":
        return values.astype(np.uint8)
    if dtype.kind == "f":
        return values.astype(np.float32 if dtype.itemsize < 8 else np.float64, copy=False)
    if dtype.itemsize < 8 or holds_int64:
        return values.astype(dtype.newbyteorder("="), copy=False)
    for smaller in (np.int32, np.uint32):
        limits = np.iinfo(smaller)
        if not len(values) or limits.min <= values.min() <= values.max() <= limits.max:
            return values.astype(smaller)
    return values.astype(np.float64)


def pack_rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return columns as the fields of an array of rows, little-endian and without padding."""
    count = len(next(iter(columns.values())))
    rows = np.empty(count, [(name, a.dtype.newbyteorder("<")) for name, a in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows
