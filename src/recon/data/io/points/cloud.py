"""Build checked clouds from points, normals and colors as files store them."""

from typing import Any

import numpy as np
from jaxtyping import Float, Num

from recon.data.dataset import Cloud
from recon.data.io.file_checks import check_cloud
from recon.data.io.points.table import PointTable, ReadOptions

FLOAT32_EPS = 2.0**-23
"""Relative spacing of float32 numbers."""
MAX_ROWS_TESTED = 1000
"""Maximum number of points whose median is the place of a cloud, evenly spaced."""
COLOR_TOLERANCE = 1 / 255
"""Tolerance of the range of colors, as a fraction of it."""
MAX_FRACTION = 1.5
"""Colors up to this value, most of them fractions, are in [0, 1]: interpolation exceeds it."""
MAX_UNIT_LENGTH_ERROR = 0.02
"""Normals whose length differs from 1 by no more than this are kept as they are."""


def compute_recenter_offset(points: np.ndarray) -> np.ndarray | None:
    """Return an offset to subtract from coordinates that float32 would round too coarsely.

    It is the rounded median of the points, (3,), so single far points do not move it; None where
    float32 is exact to 1e-5 of the extent of most points, which is twice that of their middle half.
    """
    kind, size = points.dtype.kind, points.dtype.itemsize
    if kind not in "iuf" or size < 4 or points.dtype == np.float32 or not len(points):
        return None
    rows = points[:: max(1, len(points) // MAX_ROWS_TESTED)].astype(np.float64)
    if not np.isfinite(rows).all():
        rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        return None
    places = [len(rows) // 4, len(rows) // 2, len(rows) - 1 - len(rows) // 4]
    low, middle, high = np.partition(rows, places, axis=0)[places]
    if not (extent := 2 * float((high - low).max())):
        extent = float(np.ptp(rows, axis=0).max())
    spacing = float(np.abs([low, high]).max()) * FLOAT32_EPS
    if extent == 0 or spacing <= 1e-5 * extent:
        return None
    return np.round(middle)


def normalize_colors(colors: Any, source: str) -> Num[np.ndarray, "n 3"]:
    """Return RGB as uint8 in [0, 255] or float32 in [0, 1].

    Integers of 8 and 16 bits are bytes, but 16-bit numbers if one is above 255. The largest value
    of other types tells their range: [0, 1], [0, 255] or [0, 65535]. Values that exceed a range by
    rounding are clipped; raises ValueError for others.
    """
    rgb = np.asarray(colors)[:, :3]
    is_byte = rgb.dtype.kind in "iu" and rgb.dtype.itemsize < 4
    if rgb.dtype == np.uint8:
        return rgb
    rgb = check_cloud(rgb, f"{source} (colors)")
    low, high = float(rgb.min()), float(rgb.max())
    limit = _find_color_range(rgb, high, is_byte)
    if low < -COLOR_TOLERANCE * limit or high > 65535:
        raise ValueError(
            f"{source}: its colors are in [{low:g}, {high:g}], not in [0, 1], [0, 255] or "
            "[0, 65535]: convert them"
        )
    if low < 0 or high > limit:
        rgb = rgb.clip(0, limit)
    if limit == 255:
        return rgb.round().astype(np.uint8)
    return rgb if limit == 1 else (rgb / 65535).astype(np.float32)


def _find_color_range(rgb: Float[np.ndarray, "n 3"], high: float, is_byte: bool) -> int:
    """Return the value that stands for full brightness: 1, 255 or 65535."""
    if high <= 1 and not is_byte:
        return 1
    if high <= MAX_FRACTION and (rgb != rgb.round()).mean() > 0.5:
        return 1
    return 255 if high <= 255 * (1 + COLOR_TOLERANCE) else 65535


def make_cloud(points: Any, source: str, normals: Any = None, colors: Any = None) -> Cloud:
    """Build a cloud of checked points, normals and colors; non-finite normals become zero.

    Coordinates that float32 would round too coarsely are shifted; `Cloud.origin` is the shift.
    Raises ValueError that names `source`.
    """
    origin = None
    if isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype.kind in "iuf":
        points = points[:, :3]
        if (offset := compute_recenter_offset(points)) is not None:
            points, origin = points - offset, (float(offset[0]), float(offset[1]), float(offset[2]))
    cloud = check_cloud(points, source)
    for name, field in (("normals", normals), ("colors", colors)):
        if field is not None and (np.ndim(field) != 2 or len(field) != len(cloud)):
            raise ValueError(
                f"{source}: has {name} of shape {np.shape(field)} for {len(cloud)} points: "
                "export it again"
            )
    if normals is not None:
        finite = np.nan_to_num(np.asarray(normals)[:, :3], nan=0.0, posinf=0.0, neginf=0.0)
        normals = check_cloud(finite, f"{source} (normals)")
    rgb = None if colors is None else normalize_colors(colors, source)
    return Cloud(cloud, normals, rgb, origin=origin)


def normalize_normals(normals: Any) -> tuple[Any, tuple[str, ...]]:
    """Return normals of length 1, and notes about what was changed; None where all are zero.

    Rows that are zero, NaN or infinite become zero. Other types and shapes are returned unchanged.
    """
    if not isinstance(normals, np.ndarray) or normals.ndim != 2 or normals.dtype.kind not in "iuf":
        return normals, ()
    vectors = normals[:, :3].astype(np.result_type(normals.dtype, np.float32), copy=False)
    lengths = np.sqrt(np.einsum("nc,nc->n", vectors, vectors))
    is_valid = np.isfinite(lengths) & (lengths > 0)
    is_other = is_valid & (np.abs(lengths - 1) > MAX_UNIT_LENGTH_ERROR)
    count, total = int(is_other.sum()), len(lengths)
    if not is_valid.any():
        return None, ("the normals are all zero: dropped",)
    if not is_valid.all():
        vectors = np.where(is_valid[:, None], vectors, 0)
    if not count:
        return vectors, ()
    vectors = vectors / np.where(is_other, lengths, 1)[:, None]
    return vectors, (f"{count:,} of {total:,} normals did not have length 1: normalized",)


def drop_invalid_points(table: PointTable, options: ReadOptions) -> PointTable:
    """Drop points that are NaN or infinite, and note their number, unless none is valid.

    For `on_nan="error"` they stay.
    """
    points = table.points
    is_float = isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype.kind == "f"
    if options.on_nan == "drop" and is_float and not np.isfinite(points).all():
        finite = np.isfinite(points[:, :3]).all(1)
        if finite.any() and not finite.all():
            count, total = int((~finite).sum()), len(points)
            note = f"{count:,} of {total:,} points are NaN or infinite: dropped"
            return table.take(finite)._replace(notes=(*table.notes, note))
    return table


def build_cloud(table: PointTable, source: str, options: ReadOptions) -> Cloud:
    """Build the cloud of a file's points; see `make_cloud` and `normalize_normals`.

    Points that are NaN or infinite are dropped, and counted in `Cloud.notes`, or raise ValueError
    for `on_nan="error"`.
    """
    table = drop_invalid_points(table, options)
    normals, notes = normalize_normals(table.normals)
    cloud = make_cloud(table.points, source, normals, table.colors)
    return cloud._replace(
        up=table.up, unit_meters=table.unit_meters, notes=(*table.notes, *notes, *cloud.notes)
    )
