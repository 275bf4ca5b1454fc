"""Check the records of ROS recordings, and what their chunks unpack to, before parsing."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from recon.data.io.file_checks import MAX_UNPACK_RATIO, MIN_UNPACK_LIMIT, UnsupportedContentError

MCAP_MAGIC, BAG_MAGIC, SQLITE_MAGIC = b"\x89MCAP0\r\n", b"#ROSBAG V2.0\n", b"SQLite format 3\0"
MCAP_HEADER, MCAP_CHUNK, MCAP_DATA_END = 1, 6, 15
"""Numbers of record types."""
BAG_CHUNK = 5
"""Number of the record type of chunks, its `op`."""


def check_recording(path: Path) -> None:
    """Raise ValueError for a .bag, .mcap or .db3 file that is damaged, or unpacks to too much."""
    with path.open("rb") as file:
        if path.suffix.lower() == ".db3":
            if file.read(16) != SQLITE_MAGIC:
                raise ValueError("it is no SQLite database")
            return
        sizes = _list_mcap_chunks(file) if path.suffix.lower() == ".mcap" else _list_chunks(file)
        limit = max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * path.stat().st_size)
        if (largest := max(sizes, default=0)) > limit:
            raise UnsupportedContentError(
                f"it has a chunk that unpacks to {largest:,} bytes, the limit for its size is "
                f"{limit:,}: record it without compression"
            )


def _list_mcap_chunks(file: BinaryIO) -> Iterator[int]:
    """Yield the size of each chunk of an .mcap file without compression."""
    if file.read(8) != MCAP_MAGIC:
        raise ValueError("it has no MCAP header")
    size = file.seek(0, 2)
    file.seek(8)
    while len(head := file.read(9)) == 9:
        kind, num_bytes = struct.unpack("<BQ", head)
        end = file.tell() + num_bytes
        if end > size:
            raise ValueError(f"a record of {num_bytes} bytes begins {size - file.tell()} before "
                             "its end")  # fmt: skip
        if kind == MCAP_HEADER:
            (length,) = struct.unpack("<I", file.read(4))
            if (profile := file.read(min(length, 99)).decode("latin1")) != "ros2":
                raise UnsupportedContentError(
                    f"its profile is {profile!r}, not ros2: record it by rosbag2, or convert it"
                )
        elif kind == MCAP_CHUNK:
            yield struct.unpack("<QQQ", file.read(24))[2]
        elif kind == MCAP_DATA_END:
            return
        file.seek(end)


def _list_chunks(file: BinaryIO) -> Iterator[int]:
    """Yield the size of each chunk of a ROS 1 bag without compression."""
    magic = file.read(len(BAG_MAGIC))
    if magic != BAG_MAGIC:
        if magic.startswith(b"#ROSBAG V"):
            raise UnsupportedContentError("it has an old version: convert it by rosbag fix")
        raise ValueError("it has no bag header")
    size = file.seek(0, 2)
    file.seek(len(BAG_MAGIC))
    while len(length := file.read(4)) == 4:
        fields = _parse_bag_header(file.read(min(size, struct.unpack("<I", length)[0])))
        (num_bytes,) = struct.unpack("<I", file.read(4))
        if file.tell() + num_bytes > size:
            raise ValueError(f"a record declares {num_bytes} bytes, more than follow")
        if fields.get(b"op") == bytes([BAG_CHUNK]):
            yield struct.unpack("<I", fields[b"size"])[0]
        file.seek(num_bytes, 1)


def _parse_bag_header(header: bytes) -> dict[bytes, bytes]:
    """Return the fields of a record's header by name."""
    fields, start = {}, 0
    while start + 4 <= len(header):
        (length,) = struct.unpack_from("<I", header, start)
        name, _, value = header[start + 4 : start + 4 + length].partition(b"=")
        fields[name] = value
        start += 4 + length
    return fields
