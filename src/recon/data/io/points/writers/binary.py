"""Write points as binary .ply and .pcd files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recon.data.io.points.table import PointTable
from recon.data.io.points.writers.properties import (
    fit_types,
    list_columns,
    pack_rows,
    rename_columns,
)

PLY_TYPES = {
    "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint",
    "f4": "float", "f8": "double",
}  # fmt: skip
PCD_TYPES = {"i": "I", "u": "U", "f": "F"}


def write_ply(path: Path, table: PointTable, classes: Mapping[int, str]) -> Sequence[str]:
    """Write a .ply of vertices; comments name the classes of labels. Return what changed."""
    names = ("nx", "ny", "nz"), ("red", "green", "blue")
    columns, notes = rename_columns(list_columns(table, *names))
    columns, rounded = fit_types(columns, holds_int64=False)
    rows = pack_rows(columns)
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment label {number} {_to_line(name)}" for number, name in classes.items()]
    lines += [f"element vertex {len(rows)}"]
    lines += [f"property {PLY_TYPES[a.dtype.str[1:]]} {name}" for name, a in columns.items()]
    path.write_bytes("\n".join([*lines, "end_header\n"]).encode() + rows.tobytes())
    return (*notes, *rounded)


def write_pcd(path: Path, table: PointTable, classes: Mapping[int, str]) -> Sequence[str]:
    """Write a binary .pcd, with 8-bit colors packed as PCL does. Return what changed."""
    names = ("normal_x", "normal_y", "normal_z"), ("r", "g", "b")
    columns = list_columns(table, *names)
    if table.colors is not None and table.colors.dtype == np.uint8:
        columns = pack_colors(columns)
    columns, notes = rename_columns(columns)
    columns, rounded = fit_types(columns, holds_int64=True)
    rows = pack_rows(columns)
    arrays = columns.values()
    lines = ["# .PCD v0.7 - Point Cloud Data file format"]
    lines += [f"# label {number} {_to_line(name)}" for number, name in classes.items()]
    lines += [
        "VERSION 0.7",
        f"FIELDS {' '.join(columns)}",
        f"SIZE {' '.join(str(a.dtype.itemsize) for a in arrays)}",
        f"TYPE {' '.join(PCD_TYPES[a.dtype.kind] for a in arrays)}",
        f"COUNT {' '.join('1' for _ in columns)}",
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
    ]
    path.write_bytes("\n".join([*lines, ""]).encode() + rows.tobytes())
    return (*notes, *rounded)


def pack_colors(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return columns with `rgb`, the bytes 0x00RRGGBB as the bits of a float, for r, g and b."""
    red, green, blue = (columns[name].astype(np.uint32) for name in "rgb")
    packed = (red << 16 | green << 8 | blue).view(np.float32)
    merged = {}
    for name, values in columns.items():
        if name == "r":
            merged["rgb"] = packed
        elif name not in ("g", "b"):
            merged["rgb_2" if name == "rgb" else name] = values
    return merged


def _to_line(name: str) -> str:
    return " ".join(name.split())
