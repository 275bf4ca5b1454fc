"""Rooms as S3DIS publishes them: one text file for each object, named after its class."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from recon.data.dataset import Cloud
from recon.data.datasets.layouts.room_layout import RoomLayout
from recon.data.io.file_checks import RESTORE_HINT, check_cloud
from recon.data.io.points.cloud import make_cloud
from recon.data.io.text_table import read_table
from recon.utils.printable import check_printable

COLUMNS = (3, 6)
"""Accepted numbers of columns: x y z, or x y z r g b."""


class AnnotatedRooms(RoomLayout):
    """Read `Area_k/<room>/Annotations/<class>_<number>.txt` with lines x y z r g b.

    Points are ordered by the names of their files. Labels are rows of `label_names`, the sorted
    class names of all areas.
    """

    def __init__(self, root: Path) -> None:
        folders = root.glob("Area_*/*/Annotations")
        super().__init__(root, (f.parent.relative_to(root).as_posix() for f in folders))
        self._counts = Counter(
            parse_class_name(path)
            for rooms in self.rooms.values()
            for room in rooms
            for path in self._list_objects(room)
        )
        check_printable(self._counts, root)
        self.label_names = sorted(self._counts)

    def _list_objects(self, room: str) -> list[Path]:
        # File managers leave hidden files, whose names begin with a dot.
        return sorted((self.root / room / "Annotations").glob("[!.]*.txt"))

    def file_paths(self, room: str) -> list[Path]:
        paths = self._list_objects(room)
        if not paths:
            raise ValueError(f"{self.root / room}: has no annotated objects: {RESTORE_HINT}")
        check_printable((path.name for path in paths), self.root / room)
        return paths

    def class_counts(self) -> Counter[str]:
        return self._counts

    def read(self, room: str) -> Cloud:
        paths = self.file_paths(room)
        tables = [_read_object(path) for path in paths]
        if len(width := Counter(table.shape[1] for table in tables)) > 1:
            odd = next(p for p, t in zip(paths, tables, strict=True) if t.shape[1] == min(width))
            raise ValueError(
                f"{odd}: has {min(width)} columns, expected {max(width)} as in other files of the "
                "room: copy it again or correct its columns"
            )
        assert self.label_names is not None
        rows = {name: row for row, name in enumerate(self.label_names)}
        numbers = [rows[parse_class_name(path)] for path in paths]
        table = np.concatenate(tables)
        colors = table[:, 3:] if table.shape[1] == 6 else None
        cloud = make_cloud(table[:, :3], str(self.root / room), colors=colors)
        labels = np.repeat(np.array(numbers, dtype=np.int64), [len(table) for table in tables])
        return cloud._replace(point_labels=labels)


def _read_object(path: Path) -> np.ndarray:
    table = read_table(path, columns=COLUMNS)
    check_cloud(table[:, :3], str(path))
    colors = table[:, 3:]
    if not ((colors >= 0) & (colors <= 255)).all():
        raise ValueError(f"{path}: has colors outside [0, 255]: {RESTORE_HINT}")
    return table


def parse_class_name(path: Path) -> str:
    """Return the class in the name of an object's file, `<class>_<number>.txt`."""
    return re.sub(r"_\d+$", "", path.stem)
