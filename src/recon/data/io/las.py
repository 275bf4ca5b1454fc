"""Read .las and .laz scans with laspy, after checks that files match their headers."""

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.io.file_checks import (
    MAX_UNPACK_RATIO,
    UnsupportedContentError,
    wrap_read_errors,
)
from recon.data.io.points.columns import find_names
from recon.data.io.points.las_units import find_las_unit
from recon.data.io.points.table import LazyColumns, PointTable, ReadOptions

COLOR_DIMENSIONS = ("red", "green", "blue")
LAS_RECORD_HEADER_BYTES = 54
"""Size of the header of a variable length record, in bytes."""
LAZ_LAYERED_COMPRESSOR = 3
"""LASzip's number of the compressor that splits each chunk into layers."""
LAZ_EXTRA_BYTES_ITEM, LAZ_LAYERS_PER_ITEM = 14, {10: 9, 12: 2}
"""LASzip's item types: extra bytes have a layer per byte, types not listed here have one layer."""


def read_las(path: Path, options: ReadOptions) -> PointTable:
    """Read the points of a scan with colors and all other dimensions, under laspy's names.

    Points that are flagged withheld are left out. Raises ValueError that names the file.
    """
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading .las files needs laspy: pip install 'recon-pointcloud[las]'"
        ) from error
    with wrap_read_errors(path, "LAS file"):
        las = _read_las_data(laspy, path)
        if len(las.points) < las.header.point_count:
            raise ValueError(f"it ends after {len(las.points)} of {las.header.point_count} points")
        unit, notes = find_las_unit([*las.header.vlrs, *(las.evlrs or ())])
        kept, count_note = _drop_withheld(las)
        points = np.stack([kept.x, kept.y, kept.z], 1).astype(np.float64)
        names = [*kept.point_format.dimension_names]
        has_colors = set(COLOR_DIMENSIONS) <= set(names)
        colors = np.stack([kept[c] for c in COLOR_DIMENSIONS], 1) if has_colors else None
        normal_names = find_names(names, "normals")
        normals = np.stack([kept[n] for n in normal_names], 1) if normal_names else None
    if colors is not None and not colors.any():  # scanners without a camera leave them zero
        colors = None
    extra = _find_others(kept, {*"XYZ", *COLOR_DIMENSIONS, *normal_names})
    return PointTable(
        points, normals, colors, extra, up="z", unit_meters=unit, notes=(*count_note, *notes)
    )


def _find_others(las: Any, used: set[str]) -> LazyColumns:
    """Return the dimensions that are not used; those of several numbers as `name_0`, ..."""
    readers = {}
    for dimension in las.point_format.dimensions:
        name, count = dimension.name, dimension.num_elements
        if count == 1 and name not in used:
            readers[name] = partial(_read_dimension, las, name)
        elif count > 1:
            readers |= {f"{name}_{i}": partial(_read_dimension, las, name, i) for i in range(count)}
    return LazyColumns(readers)


def _read_dimension(las: Any, name: str, element: int | None = None) -> np.ndarray:
    values = np.asarray(las[name])
    return values if element is None else values[:, element]


def _drop_withheld(las: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the points that are not flagged withheld, which means deleted, and a note."""
    version = las.header.version
    if (version.major, version.minor) == (1, 0):  # its byte of classes has no flags
        return las, ()
    withheld = np.asarray(las.withheld).astype(np.bool_)
    if not (count := int(withheld.sum())):
        return las, ()
    if count == len(withheld):
        raise UnsupportedContentError(
            f"all of its {count:,} points are flagged withheld, which means deleted: clear the flag"
        )
    note = f"{count:,} of {len(withheld):,} points are flagged withheld: omitted"
    return las[~withheld], (note,)


def _read_las_data(laspy: Any, path: Path) -> Any:
    """Read a .las or .laz file by a single-threaded decompressor.

    The parallel one hangs in forked workers, and accepts chunks of any size.
    """
    backends = laspy.LazBackend.detect_available()
    single_threaded = [item for item in backends if item != laspy.LazBackend.LazrsParallel]
    try:
        check_las(path)
        return laspy.read(path, laz_backend=single_threaded)
    except BaseException as error:  # a panic of the Rust decompressor is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"its compressed points are damaged: {error}") from error


def check_las(path: Path) -> None:
    """Raise ValueError for a .las or .laz file whose header declares more than its size allows."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(375)
    if len(head) < 227 or head[:4] != b"LASF":
        raise ValueError("it has no LAS header")
    points_offset, num_records = struct.unpack_from("<II", head, 96)
    point_bytes, num_points = struct.unpack_from("<HI", head, 105)
    if head[25] >= 4 and len(head) >= 255:  # LAS 1.4 has further records and 64-bit counts
        num_records += struct.unpack_from("<I", head, 243)[0]
        num_points = max(num_points, struct.unpack_from("<Q", head, 247)[0])
    ratio = MAX_UNPACK_RATIO if head[104] & 0x80 or path.suffix.lower() == ".laz" else 1
    if points_offset < struct.unpack_from("<H", head, 94)[0]:
        raise ValueError(f"its points begin at byte {points_offset}, inside its header")
    if (
        points_offset > size
        or num_records * LAS_RECORD_HEADER_BYTES > size
        or num_points * point_bytes > ratio * size
    ):
        raise ValueError(
            f"its header declares {num_records} records and {num_points} points of {point_bytes} "
            f"bytes, it has {size} bytes"
        )
    if head[104] & 0x80:
        _check_laz(path, head, point_bytes)


def _check_laz(path: Path, head: bytes, point_bytes: int) -> None:
    """Raise ValueError for a wrong size of the compressed points, or for too many chunks.

    The decompressor does not check these, and its failure would end the program.
    """
    size, laszip_record = path.stat().st_size, b""
    offset, points_offset, num_records = struct.unpack_from("<HII", head, 94)
    with path.open("rb") as file:
        for _ in range(num_records):
            file.seek(offset)
            record_header = file.read(LAS_RECORD_HEADER_BYTES)
            laszip_record = file.read(struct.unpack_from("<H", record_header, 20)[0])
            if record_header[2:16] == b"laszip encoded":
                break
            offset += len(record_header) + len(laszip_record)
        (num_items,) = struct.unpack_from("<H", laszip_record, 32)
        item_bytes = sum(
            struct.unpack_from("<H", laszip_record, 36 + 6 * item)[0] for item in range(num_items)
        )
        if item_bytes != point_bytes:
            raise ValueError(f"its points of {point_bytes} bytes are compressed as {item_bytes}")
        file.seek(points_offset)
        table_offset = struct.unpack("<q", file.read(8))[0]
        is_layered = struct.unpack_from("<H", laszip_record)[0] == LAZ_LAYERED_COMPRESSOR
        if table_offset == -1:  # writers of a stream put the offset at the end of the file
            file.seek(-8, 2)
            table_offset = struct.unpack("<q", file.read(8))[0]
        file.seek(table_offset)
        num_chunks = struct.unpack("<II", file.read(8))[1]
    if num_chunks * point_bytes > size:
        raise ValueError(f"its header declares {num_chunks} chunks of points, it has {size} bytes")
    if is_layered:
        _check_layers(path, laszip_record, points_offset, point_bytes)


def _check_layers(path: Path, laszip_record: bytes, points_offset: int, point_bytes: int) -> None:
    """Raise ValueError for a chunk shorter than its layers, whose sizes lazrs would allocate."""
    import lazrs

    num_items = struct.unpack_from("<H", laszip_record, 32)[0]
    items = struct.iter_unpack("<HHH", laszip_record[34 : 34 + 6 * num_items])
    num_layers = sum(
        size if kind == LAZ_EXTRA_BYTES_ITEM else LAZ_LAYERS_PER_ITEM.get(kind, 1)
        for kind, size, _ in items
    )
    with path.open("rb") as file:
        file.seek(points_offset)
        chunks = lazrs.read_chunk_table(file, lazrs.LazVlr(laszip_record))
        offset = points_offset + 8  # the points begin after the offset of the chunk table
        for _, size in chunks:
            # A chunk begins with a point and the number of points.
            file.seek(offset + point_bytes + 4)
            layer_bytes = sum(struct.unpack(f"<{num_layers}I", file.read(4 * num_layers)))
            if layer_bytes > size:
                raise ValueError(f"a chunk of {size} bytes declares layers of {layer_bytes} bytes")
            offset += size
