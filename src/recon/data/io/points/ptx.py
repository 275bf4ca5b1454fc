"""Read Leica's .ptx scans: grids of points, each with the pose of its scanner."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.points.table import PointTable, ReadOptions

HEADER_LINES = 10
"""Lines before the points of a scan: columns, rows, position, three axes, matrix of four rows."""
MIN_ROW_BYTES = 8
"""Minimum size of a line x y z intensity, in bytes."""
PTX_COLUMNS = (4, 7)
"""Numbers of columns: x y z intensity, with or without r g b."""


def read_ptx(path: Path, options: ReadOptions) -> PointTable:
    """Read all scans of a file in the coordinates of the first line of their matrices.

    Points at 0 0 0 are directions without a return: they are left out and counted. Raises
    ValueError that names the file.
    """
    content = check_file(path).read_bytes()
    with wrap_read_errors(path, "PTX scan"):
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        scans, offset = list[Float[np.ndarray, "n c"]](), 0
        while content[offset:].strip() if len(content) - offset < 4096 else True:
            scan, offset = _read_scan(content, offset)
            scans.append(scan)
        if len({scan.shape[1] for scan in scans}) > 1:
            scans = [scan[:, :4] for scan in scans]
        table = np.concatenate(scans)
        is_empty = np.concatenate([np.isnan(scan[:, 0]) for scan in scans])
        if is_empty.all():
            raise UnsupportedContentError("all of its points are 0 0 0: export it again")
        numbers = np.repeat(np.arange(len(scans)), [len(scan) for scan in scans])
    found = PointTable(
        table[:, :3],
        colors=table[:, 4:7] if table.shape[1] == 7 else None,
        extra={"intensity": table[:, 3], "scan": numbers},
    )
    if not is_empty.any():
        return found
    note = f"{int(is_empty.sum()):,} of {len(table):,} points are 0 0 0, without a return: omitted"
    return found.take(~is_empty)._replace(notes=(note,))


def _read_scan(content: bytes, offset: int) -> tuple[Float[np.ndarray, "n c"], int]:
    """Return the transformed points of a scan, NaN without a return, and the offset of its end."""
    lines = list[bytes]()
    while len(lines) < HEADER_LINES:
        end = content.find(b"\n", offset)
        if end < 0:
            raise ValueError(f"it ends after {len(lines)} of {HEADER_LINES} lines of a header")
        if line := content[offset:end].strip():
            lines.append(line)
        offset = end + 1
    num_columns, num_rows = (int(line) for line in lines[:2])
    count = num_columns * num_rows
    if min(num_columns, num_rows) < 0 or count * MIN_ROW_BYTES > len(content) - offset + 1:
        raise ValueError(f"its header declares {num_columns} x {num_rows} points, it is shorter")
    matrix = np.array([[float(word) for word in line.split()] for line in lines[6:]])
    if matrix.shape != (4, 4):
        raise ValueError(f"it has a matrix of shape {matrix.shape}, expected (4, 4)")
    rows = io.BytesIO(content)
    rows.seek(offset)
    table = np.loadtxt(rows, comments=None, max_rows=count, ndmin=2) if count else np.empty((0, 4))
    if len(table) < count or table.shape[1] not in PTX_COLUMNS:
        raise ValueError(f"it has {table.shape} numbers, expected ({count}, 4) or ({count}, 7)")
    is_empty = ~table[:, :3].any(1)
    table[:, :3] = table[:, :3] @ matrix[:3, :3] + matrix[3, :3]
    table[is_empty, :3] = np.nan
    return table, rows.tell()
