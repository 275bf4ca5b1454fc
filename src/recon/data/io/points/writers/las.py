"""Write points as .las and .laz files with laspy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.io.points.table import PointTable
from recon.data.io.points.writers.properties import (
    AXES,
    Columns,
    find_free_name,
    fit_types,
    list_columns,
    rename_columns,
)

MAX_STEPS = 2**31 - 2
"""Maximum distance of a coordinate from the offset, in steps of the scale."""
SMALLEST_SCALE, MAX_ERROR = 1e-9, 1e-4
"""Smallest scale, and the rounding error of coordinates beyond which a note says so, in units."""
NAME_BYTES, CLASS_NAME_BYTES = 32, 15
"""Maximum length of the names of extra dimensions and of classes."""
NORMAL_NAMES, COLOR_NAMES = ("normal_x", "normal_y", "normal_z"), ("red", "green", "blue")
DIMENSIONS = {"label": "classification"}
"""Names of dimensions of the format for properties of another name."""


def write_las(
    path: Path, table: PointTable, classes: Mapping[int, str], *, is_compressed: bool = False
) -> Sequence[str]:
    """Write a .las or .laz file of version 1.4. Return what changed.

    Colors get 16 bits. Normals, and properties that the format has no dimension for, become extra
    dimensions; labels become classifications, whose names are stored in the header.
    """
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: writing .las files needs laspy: pip install 'recon-pointcloud[las]'"
        ) from error
    header = laspy.LasHeader(version="1.4", point_format=6 if table.colors is None else 7)
    points = np.asarray(table.points, np.float64)
    header.scales, header.offsets, notes = choose_scale(points)
    columns = list_columns(table, NORMAL_NAMES, COLOR_NAMES)
    columns = {name: values for name, values in columns.items() if name not in AXES}
    known, rest = _match_dimensions(columns, {*header.point_format.dimension_names})
    rest, renamed = rename_columns(rest, NAME_BYTES)
    rest, rounded = fit_types(rest, holds_int64=True)
    header.add_extra_dims([laspy.ExtraBytesParams(name, a.dtype) for name, a in rest.items()])
    if classes:
        notes += _add_class_names(laspy, header, classes)
    las = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(len(points), header=header))
    las.x, las.y, las.z = points.T
    for name, values in {**known, **rest}.items():
        las[name] = values
    with path.open("wb") as file:
        las.write(file, do_compress=is_compressed)
    if table.normals is not None:
        notes.append("normals are extra dimensions")
    return (*notes, *renamed, *rounded)


def write_laz(path: Path, table: PointTable, classes: Mapping[int, str]) -> Sequence[str]:
    """Write a compressed file; see `write_las`."""
    return write_las(path, table, classes, is_compressed=True)


def choose_scale(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return scales and whole offsets (3,) that reach all points, and a note on rounding.

    The scale is the smallest 1, 2 or 5 times a power of ten that 32-bit integers allow.
    """
    low, high = points.min(0), points.max(0)
    offsets = np.floor(low / 2 + high / 2)
    reach = np.maximum(np.abs(high - offsets), np.abs(low - offsets))
    scales = np.array([_round_up(max(float(r) / MAX_STEPS, SMALLEST_SCALE)) for r in reach])
    notes = []
    if (error := float(scales.max()) / 2) > MAX_ERROR:
        notes.append(f"coordinates are rounded by up to {error:g} units")
    else:
        notes.append(f"coordinates are stored in steps of {float(scales.max()):g} units")
    return scales, offsets, notes


def _round_up(scale: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is not less than a scale."""
    exponent = math.floor(math.log10(scale))
    choices = [float(f"{digit}e{exponent}") for digit in (1, 2, 5, 10)]
    return next(choice for choice in choices if choice >= scale)


def _match_dimensions(
    columns: Mapping[str, np.ndarray], available: set[str]
) -> tuple[Columns, Columns]:
    """Split columns into those that dimensions of the format hold exactly, and all others."""
    import laspy

    colors = [columns[name] for name in COLOR_NAMES if name in columns]
    known: Columns = {n: _to_16_bits(a) for n, a in zip(COLOR_NAMES, colors, strict=False)}
    rest: Columns = {}
    dimensions = {d.name: d for d in laspy.PointFormat(7).dimensions}
    for name, values in columns.items():
        if name in known:
            continue
        target = DIMENSIONS.get(name.lower(), name.lower())
        dimension = dimensions.get(target)
        is_free = target in available and target not in known and target not in ("x", "y", "z")
        if is_free and dimension is not None and _holds(dimension, values):
            is_float = dimension.kind.name == "FloatingPoint"
            known[target] = values if is_float else values.astype(np.int64)
        else:
            taken = {*available, *rest, "x", "y", "z"}
            rest[find_free_name(name, taken)] = values
    return known, rest


def _holds(dimension: Any, values: np.ndarray) -> bool:
    """Tell whether a dimension of the format stores values exactly."""
    if values.dtype.kind not in "iufb":
        return False
    if dimension.kind.name == "FloatingPoint":
        return bool(values.dtype.kind != "f" or values.dtype.itemsize <= dimension.num_bits // 8)
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.trunc(values))).all():
        return False
    signed = dimension.kind.name == "SignedInteger"
    low = -(2 ** (dimension.num_bits - 1)) if signed else 0
    high = 2 ** (dimension.num_bits - signed) - 1
    return not len(values) or bool(low <= values.min() and values.max() <= high)


def _to_16_bits(values: np.ndarray) -> np.ndarray:
    """Return a color as uint16: 255 and 1.0 become 65535."""
    if values.dtype.kind == "f":
        return (values * 65535).round().clip(0, 65535).astype(np.uint16)
    return values.astype(np.uint16) * np.uint16(257 if values.dtype.itemsize == 1 else 1)


def _add_class_names(laspy: Any, header: Any, classes: Mapping[int, str]) -> list[str]:
    """Store names of up to 256 classes in the header; return a note on those that are cut."""
    record = laspy.vlrs.known.ClassificationLookupVlr()
    cut = []
    for number, name in classes.items():
        short = name.encode("ascii", "replace")[:CLASS_NAME_BYTES].decode()
        if number < 256:
            record[number] = short
        if short != name or number >= 256:
            cut.append(name)
    header.vlrs.append(record)
    return [f"the names of classes are cut: {', '.join(cut)!s:.200}"] if cut else []
