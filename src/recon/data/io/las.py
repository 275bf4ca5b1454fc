"""Scans in .las and .laz files, by laspy, and what they announce held against what they hold."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.dataset import Cloud
from recon.data.io.file_checks import MAX_UNPACK_RATIO, wrap_read_errors
from recon.data.io.surface_sampling import make_cloud

LAZ_LAYERED_COMPRESSOR, LAZ_EXTRA_BYTES_ITEM, LAZ_LAYERS_PER_ITEM = 3, 14, {10: 9, 12: 2}
"""Of packed LAS: chunks in layers, an item with one for each byte, items with several."""


def read_las(path: Path, count: int) -> Cloud:
    """Read the points of a scan, all of them; raise ValueError that names a bad file."""
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading it needs laspy: pip install 'recon-pointcloud[las]'"
        ) from error
    with wrap_read_errors(path, "LAS file"):
        las = _unpacked(laspy, path)
        if len(las.points) < las.header.point_count:
            raise ValueError(f"ends after {len(las.points)} of {las.header.point_count} points")
        points = np.stack([las.x, las.y, las.z], 1).astype(np.float64)
        painted = {"red", "green", "blue"} <= set(las.point_format.dimension_names)
        colors = np.stack([las.red, las.green, las.blue], 1) if painted else None
    if colors is not None and not colors.any():  # the format has them, the scanner did not
        colors = None
    return make_cloud(points, str(path), None, colors)


def _unpacked(laspy: Any, path: Path) -> Any:
    """Read a .las or .laz file by one thread: several hang in forked workers, and take any chunk.

    Raises ValueError where the unpacker gives up, which is no `Exception` to Python.
    """
    found = laspy.LazBackend.detect_available()
    single = [backend for backend in found if backend != laspy.LazBackend.LazrsParallel]
    try:
        check_las(path)
        return laspy.read(path, laz_backend=single)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"its packed points are damaged: {error}") from error


def check_las(path: Path) -> None:
    """Raise ValueError for a .las or .laz file that announces more than fits into it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(375)
    if len(head) < 227 or head[:4] != b"LASF":
        raise ValueError("it has no header of a LAS file")
    start, records = struct.unpack_from("<II", head, 96)
    length, count = struct.unpack_from("<HI", head, 105)
    more = 0
    if head[25] >= 4 and len(head) >= 255:
        (more,) = struct.unpack_from("<I", head, 243)
        count = max(count, struct.unpack_from("<Q", head, 247)[0])
    packed = MAX_UNPACK_RATIO if head[104] & 0x80 or path.suffix.lower() == ".laz" else 1
    if start < struct.unpack_from("<H", head, 94)[0]:
        raise ValueError(f"its points begin at byte {start}, inside its header")
    if start > size or (records + more) * 54 > size or count * length > packed * size:
        raise ValueError(
            f"{records + more} records and {count} points of {length} bytes are announced, it has "
            f"{size} bytes"
        )
    if head[104] & 0x80:
        _check_laz(path, head, length)


def _check_laz(path: Path, head: bytes, length: int) -> None:
    """Raise ValueError for packed points of another length, or more chunks than fit into a file.

    The unpacker takes both as they are, and where it fails, it ends the program.
    """
    size, told = path.stat().st_size, b""
    place, start, records = struct.unpack_from("<HII", head, 94)
    with path.open("rb") as file:
        for _ in range(records):
            file.seek(place)
            record = file.read(54)
            told = file.read(struct.unpack_from("<H", record, 20)[0])
            if record[2:16] == b"laszip encoded":
                break
            place += len(record) + len(told)
        (items,) = struct.unpack_from("<H", told, 32)
        parts = sum(struct.unpack_from("<H", told, 36 + 6 * item)[0] for item in range(items))
        if parts != length:
            raise ValueError(f"points of {length} bytes are packed as {parts}")
        file.seek(start)
        table = struct.unpack("<q", file.read(8))[0]
        layered = struct.unpack_from("<H", told)[0] == LAZ_LAYERED_COMPRESSOR
        if table == -1:  # it was not known yet when the points were written
            file.seek(-8, 2)
            table = struct.unpack("<q", file.read(8))[0]
        file.seek(table)
        chunks = struct.unpack("<II", file.read(8))[1]
    if chunks * length > size:
        raise ValueError(f"{chunks} chunks of points are announced, it has {size} bytes")
    if layered:
        _check_layers(path, told, start, length)


def _check_layers(path: Path, told: bytes, start: int, length: int) -> None:
    """Raise ValueError for a chunk whose layers are longer than it: each is allocated as announced.

    `told` describes the packing, `start` is where points begin, each of `length` bytes.
    """
    import lazrs

    kinds = struct.iter_unpack("<HHH", told[34 : 34 + 6 * struct.unpack_from("<H", told, 32)[0]])
    layers = sum(
        size if kind == LAZ_EXTRA_BYTES_ITEM else LAZ_LAYERS_PER_ITEM.get(kind, 1)
        for kind, size, _ in kinds
    )
    with path.open("rb") as file:
        file.seek(start)
        chunks = lazrs.read_chunk_table(file, lazrs.LazVlr(told))
        place = start + 8  # after where the table lies
        for _, size in chunks:
            file.seek(place + length + 4)  # after a point, and how many there are
            announced = sum(struct.unpack(f"<{layers}I", file.read(4 * layers)))
            if announced > size:
                raise ValueError(f"layers of {announced} bytes are announced in a chunk of {size}")
            place += size
