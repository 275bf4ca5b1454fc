"""Rooms as arrays: one table a room, or one array for each field of a room."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.dataset import Cloud
from recon.data.datasets.layouts.room_layout import RoomLayout, convert_labels
from recon.data.io.arrays import read_npy, read_npy_shape
from recon.data.io.file_checks import (
    RESTORE_HINT,
    UnsupportedContentError,
    check_file,
    wrap_read_errors,
)
from recon.data.io.points.cloud import make_cloud
from recon.data.io.safe_pickle import unpickle

TABLE_NAME = re.compile(r"(Area_[^_./]+)_(.+)\.npy")
"""File name of a table in one folder for all areas."""
POINT_SUFFIX, LABEL_SUFFIX = "_point.npy", "_sem_label.npy"
"""Ends of the names of files that have points and labels apart, as MMDetection3D writes them."""
OTHER_SUFFIXES = (LABEL_SUFFIX, "_ins_label.npy")


class TableRooms(RoomLayout):
    """Read tables x y z r g b label, or x y z label, one .npy file a room.

    Files are `Area_k_<room>.npy`, as PointNet writes them, or `Area_k/<room>.npy`. In files
    `Area_k_<room>_point.npy` with x y z r g b, labels are in `..._sem_label.npy`.
    """

    def __init__(self, root: Path) -> None:
        self._paths = find_tables(root)
        super().__init__(root, self._paths)

    def _label_path(self, room: str) -> Path | None:
        path = self._paths[room]
        if not path.name.endswith(POINT_SUFFIX):
            return None
        return path.with_name(path.name.removesuffix(POINT_SUFFIX) + LABEL_SUFFIX)

    def file_paths(self, room: str) -> list[Path]:
        labels = self._label_path(room)
        return [self._paths[room], *([labels] if labels else [])]

    def count_points(self, room: str) -> int | None:
        shape = read_npy_shape(self._paths[room])
        return shape[0] if len(shape) == 2 else None

    def read(self, room: str) -> Cloud:
        path, label_path = self._paths[room], self._label_path(room)
        table = read_npy(path)
        columns = (3, 6) if label_path else (4, 7)
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] not in columns:
            shape = getattr(table, "shape", type(table).__name__)
            raise ValueError(
                f"{path}: has shape {shape}, expected (N, {columns[1]}), x y z r g b"
                f"{'' if label_path else ' label'}, or (N, {columns[0]}), without colors"
            )
        labels = read_npy(label_path) if label_path else table[:, -1]
        colors = table[:, 3:6] if table.shape[1] >= 6 else None
        cloud = make_cloud(table[:, :3], str(path), colors=colors)
        source = str(label_path or path)
        return cloud._replace(point_labels=convert_labels(labels, len(table), source))


def find_tables(root: Path) -> dict[str, Path]:
    """Return the tables in a folder by room, `<area>/<name>`."""
    found = {}
    for path in [*root.glob("Area_*.npy"), *root.glob("Area_*/*.npy")]:
        name = path.name.removesuffix(POINT_SUFFIX).removesuffix(".npy")
        match = TABLE_NAME.fullmatch(f"{name}.npy") if path.parent == root else None
        area, room = match.groups() if match else (path.parent.name, name)
        if not path.name.endswith(OTHER_SUFFIXES) and area.startswith("Area_"):
            found[f"{area}/{room}"] = path
    return found


FIELD_NAMES: Mapping[str, tuple[str, ...]] = {
    "points": ("coord",),
    "colors": ("color",),
    "normals": ("normal",),
    "labels": ("segment", "semantic_gt"),
}
"""Names of the arrays of a room in Pointcept's layouts, new and old."""


class FieldRooms(RoomLayout):
    """Read Pointcept's rooms: `Area_k/<room>/{coord,color,normal,segment}.npy`.

    Its older files `Area_k/<room>.pth` have the same arrays, with labels as `semantic_gt`. Colors
    and normals may be missing.
    """

    def __init__(self, root: Path) -> None:
        folders = {
            f"{p.parent.parent.name}/{p.parent.name}" for p in root.glob("Area_*/*/coord.npy")
        }
        self._files = {f"{p.parent.name}/{p.stem}": p for p in root.glob("Area_*/*.pth")}
        super().__init__(root, folders | self._files.keys())

    def _field_path(self, room: str, field: str) -> Path:
        names = [self.root / room / f"{name}.npy" for name in FIELD_NAMES[field]]
        return next((path for path in names if path.is_file()), names[0])

    def file_paths(self, room: str) -> list[Path]:
        if room in self._files:
            return [self._files[room]]
        paths = [self._field_path(room, field) for field in FIELD_NAMES]
        return [path for path in paths if path.is_file()]

    def count_points(self, room: str) -> int | None:
        if room in self._files:
            return None
        shape = read_npy_shape(self._field_path(room, "points"))
        return shape[0] if len(shape) == 2 else None

    def read(self, room: str) -> Cloud:
        if room in self._files:
            path = label_path = self._files[room]
            content = _read_arrays_of_pth(path)
            fields = {
                field: next((content[name] for name in names if name in content), None)
                for field, names in FIELD_NAMES.items()
            }
        else:
            path, label_path = (self._field_path(room, field) for field in ("points", "labels"))
            present = {field: self._field_path(room, field) for field in FIELD_NAMES}
            fields = {k: read_npy(p) if p.is_file() else None for k, p in present.items()}
        if not isinstance(fields["labels"], np.ndarray):
            raise ValueError(f"{label_path}: has no labels of the points: {RESTORE_HINT}")
        cloud = make_cloud(fields["points"], str(path), fields["normals"], fields["colors"])
        labels = convert_labels(fields["labels"], len(cloud.points), str(label_path))
        return cloud._replace(point_labels=labels)


def _read_arrays_of_pth(path: Path) -> dict[str, Any]:
    """Read a dictionary of plain NumPy arrays that torch.save wrote, without running its code."""
    check_file(path)
    with wrap_read_errors(path, "file of arrays"), zipfile.ZipFile(path) as archive:
        member = next((m for m in archive.infolist() if m.filename.endswith("/data.pkl")), None)
        if member is None or member.compress_type != zipfile.ZIP_STORED:
            raise UnsupportedContentError("it was not written by torch.save: convert it to .npy")
        with archive.open(member) as file:
            content = unpickle(file, str(path))  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: contains a {type(content).__name__}, not arrays by name")
    return content
