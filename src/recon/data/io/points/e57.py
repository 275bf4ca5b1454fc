"""Read the scans of .e57 files with libE57Format, by way of pye57."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from recon.data.io.file_checks import UnsupportedContentError, wrap_read_errors
from recon.data.io.points.e57_checks import check_e57
from recon.data.io.points.table import PointTable, ReadOptions

CARTESIAN = ("cartesianX", "cartesianY", "cartesianZ")
SPHERICAL = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
COLORS = ("colorRed", "colorGreen", "colorBlue")
NORMALS = ("nor:normalX", "nor:normalY", "nor:normalZ")
"""Names of the extension E57_EXT_surface_normals."""
CHUNK_RECORDS = 2**20
"""Number of points that are read in one step."""


class _Scan(NamedTuple):
    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"] | None
    colors: Num[np.ndarray, "n 3"] | None
    extra: dict[str, np.ndarray]
    num_invalid: int


def read_e57(path: Path, options: ReadOptions) -> PointTable:
    """Read the valid points of all scans, in the common frame of the file.

    Each scan's pose is applied, to normals too, and spherical coordinates are converted. `extra`
    has the intensity and other fields that all scans have, and the number of the `scan`, if there
    are several. Raises ValueError that names the file.
    """
    try:
        from pye57 import libe57
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading .e57 files needs pye57: pip install 'recon-pointcloud[e57]'"
        ) from error
    with wrap_read_errors(path, "E57 file"):
        check_e57(path)
        image = libe57.ImageFile(str(path), "r")
        try:
            nodes = image.root()["data3D"] if image.root().isDefined("data3D") else []
            scans = [_read_scan(libe57, image, nodes[n]) for n in range(len(nodes))]
        finally:
            image.close()
        if not scans:
            raise UnsupportedContentError("it has no scans, only images: export points")
        return _merge_scans(scans)


def _merge_scans(scans: Sequence[_Scan]) -> PointTable:
    """Concatenate scans; properties that only some of them have are left out, and noted."""
    notes = []
    total = sum(len(scan.points) + scan.num_invalid for scan in scans)
    if invalid := sum(scan.num_invalid for scan in scans):
        notes.append(f"{invalid:,} of {total:,} points are marked invalid: dropped")
    names = dict.fromkeys(name for scan in scans for name in scan.extra)
    common = [name for name in names if all(name in scan.extra for scan in scans)]
    partial = [name for name in names if name not in common]
    merged: dict[str, np.ndarray | None] = {}
    for kind in ("normals", "colors"):
        values = [getattr(scan, kind) for scan in scans]
        if all(value is not None for value in values):
            same_type = len({value.dtype for value in values}) == 1
            merged[kind] = np.concatenate(values if same_type else [*map(_to_fractions, values)])
        else:
            merged[kind] = None
            partial += [kind] if any(value is not None for value in values) else []
    if partial:
        notes.append(f"only some scans have {', '.join(partial)}: left out")
    extra = {name: np.concatenate([scan.extra[name] for scan in scans]) for name in common}
    if len(scans) > 1:
        extra["scan"] = np.repeat(np.arange(len(scans)), [len(scan.points) for scan in scans])
    return PointTable(
        np.concatenate([scan.points for scan in scans]),
        normals=merged["normals"],
        colors=merged["colors"],
        extra=extra,
        up="z",
        unit_meters=1.0,
        notes=tuple(notes),
    )


def _to_fractions(colors: Num[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return colors in [0, 1]; integers fill the range of their type."""
    if colors.dtype.kind == "f":
        return colors
    return (colors / np.iinfo(colors.dtype).max).astype(np.float32)


def _read_scan(libe57: Any, image: Any, node: Any) -> _Scan:
    fields = _read_fields(libe57, image, node)
    if set(fields) >= set(CARTESIAN):
        points = np.stack([fields.pop(name) for name in CARTESIAN], 1).astype(np.float64)
    elif set(fields) >= set(SPHERICAL):
        points = _convert_spherical(*(fields.pop(name) for name in SPHERICAL))
    else:
        raise UnsupportedContentError(
            f"a scan has the fields {', '.join(fields)!s:.200}, neither cartesian nor spherical "
            "coordinates: export these"
        )
    valid = np.ones(len(points), np.bool_)
    for name in ("cartesianInvalidState", "sphericalInvalidState"):
        valid &= fields.pop(name, np.zeros(len(points))) == 0
    rotation, translation = _read_pose(node)
    normals = None
    if set(fields) >= set(NORMALS):
        normals = np.stack([fields.pop(name) for name in NORMALS], 1)[valid] @ rotation.T
    colors = _take_colors(libe57, node, fields, valid)
    return _Scan(
        points[valid] @ rotation.T + translation,
        normals,
        colors,
        {name: values[valid] for name, values in fields.items()},
        int((~valid).sum()),
    )


def _read_fields(libe57: Any, image: Any, node: Any) -> dict[str, np.ndarray]:
    """Read all number fields of a scan by name: integers as int64, others as float32 or float64."""
    points = node["points"]
    prototype = libe57.StructureNode(points.prototype())
    count = int(points.childCount())
    fields: dict[str, np.ndarray] = {}
    parts: dict[str, np.ndarray] = {}
    buffers = libe57.VectorSourceDestBuffer()
    for number in range(prototype.childCount()):
        child = prototype[prototype.get(number).elementName()]  # of its own type
        dtype = _get_type(libe57, child)
        if dtype is None:
            continue
        name = child.elementName()
        fields[name] = np.empty(count, dtype)
        # libE57Format's binding takes an array of C's long for one of 32 bits.
        buffer_type = np.longlong if dtype is np.int64 else dtype
        parts[name] = np.empty(min(count, CHUNK_RECORDS) or 1, buffer_type)
        buffers.append(
            libe57.SourceDestBuffer(image, name, parts[name], len(parts[name]), True, True)
        )
    if not count or not fields:
        return fields
    reader, start = points.reader(buffers), 0
    while (length := reader.read()) and start < count:
        for name, part in parts.items():
            fields[name][start : start + length] = part[:length]
        start += length
    reader.close()
    if start < count:
        raise ValueError(f"a scan ends after {start} of {count} points")
    return fields


def _get_type(libe57: Any, node: Any) -> Any:
    """Return numpy's type for a field, or None for text."""
    if isinstance(node, libe57.IntegerNode):
        return np.int64
    if isinstance(node, libe57.FloatNode):
        return np.float32 if node.precision() == libe57.E57_SINGLE else np.float64
    return np.float64 if isinstance(node, libe57.ScaledIntegerNode) else None


def _convert_spherical(
    distance: Num[np.ndarray, " n"],
    azimuth: Num[np.ndarray, " n"],
    elevation: Num[np.ndarray, " n"],
) -> Float[np.ndarray, "n 3"]:
    """Convert range, azimuth from x to y, and elevation from the xy plane, in radians."""
    level = distance * np.cos(elevation, dtype=np.float64)
    azimuth = azimuth.astype(np.float64)
    height = distance * np.sin(elevation, dtype=np.float64)
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), height], 1)


def _read_pose(node: Any) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
    """Return rotation and translation from the scan's frame to the file's."""
    quaternion, translation = np.array([1.0, 0, 0, 0]), np.zeros(3)
    if node.isDefined("pose"):
        pose = node["pose"]
        if pose.isDefined("rotation"):  # by name, since the order of elements is free
            quaternion = np.array([pose["rotation"][name].value() for name in "wxyz"], np.float64)
        if pose.isDefined("translation"):
            translation = np.array([pose["translation"][name].value() for name in "xyz"])
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(norm) or norm == 0:
        raise ValueError("the rotation of a scan is no unit quaternion")
    w, x, y, z = quaternion / norm
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rotation, translation


def _take_colors(
    libe57: Any, node: Any, fields: dict[str, np.ndarray], valid: Bool[np.ndarray, " n"]
) -> Num[np.ndarray, "m 3"] | None:
    """Remove the colors from the fields: uint8 or uint16 for these limits, else fractions."""
    if not set(fields) >= set(COLORS):
        return None
    limits = [_read_limits(libe57, node, name) for name in COLORS]
    values = np.stack([fields.pop(name)[valid] for name in COLORS], 1)
    for high, dtype in ((255, np.uint8), (65535, np.uint16)):
        is_inside = values.size == 0 or (values.min() >= 0 and values.max() <= high)
        if set(limits) == {(0.0, float(high))} and values.dtype.kind == "i" and is_inside:
            return values.astype(dtype)
    low, high = np.array(limits).T
    scale = np.where(high > low, high - low, 1)
    return ((values - low) / scale).clip(0, 1).astype(np.float32)


def _read_limits(libe57: Any, node: Any, name: str) -> tuple[float, float]:
    """Return the range that a color declares, or else that its field does."""
    if node.isDefined("colorLimits"):
        limits, keys = node["colorLimits"], (f"{name}Minimum", f"{name}Maximum")
        if all(limits.isDefined(key) for key in keys):
            low, high = (_get_value(limits[key]) for key in keys)
            return low, high
    field = libe57.StructureNode(node["points"].prototype())[name]
    if isinstance(field, libe57.IntegerNode):
        return float(field.minimum()), float(field.maximum())
    return 0.0, 1.0


def _get_value(node: Any) -> float:
    """Return the number of a node, scaled if it is an integer with a scale."""
    return float(node.scaledValue() if hasattr(node, "scaledValue") else node.value())
