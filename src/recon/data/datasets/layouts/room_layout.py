"""Interface of rooms on disk: areas, rooms and their files, in any layout."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from recon.data.dataset import Cloud
from recon.utils.printable import check_printable

IGNORED_LABELS = (-1, 255)
"""Labels of points without a class in files; they become -1."""


class RoomLayout(ABC):
    """Rooms of all areas in a folder; `rooms` maps the name of an area to its room ids."""

    label_names: Sequence[str] | None = None
    """Names of the labels of `read`, if the files name their classes."""

    def __init__(self, root: Path, ids: Iterable[str]) -> None:
        self.root = root
        self.rooms: dict[str, list[str]] = {}
        for room in sorted(ids, key=_natural_key):
            self.rooms.setdefault(room.partition("/")[0], []).append(room)
        check_printable((room for rooms in self.rooms.values() for room in rooms), root)

    @abstractmethod
    def file_paths(self, room: str) -> list[Path]:
        """Return the files of a room, given its id `<area>/<name>`."""

    @abstractmethod
    def read(self, room: str) -> Cloud:
        """Read a room with the labels of its files; raise ValueError that names a bad file."""

    def count_points(self, room: str) -> int | None:
        """Return the number of points of a room, None if only reading its files tells it."""
        return None

    def class_counts(self) -> Mapping[str, int]:
        """Return the number of objects of each class in all areas, if files name classes."""
        return Counter[str]()


def _natural_key(room: str) -> tuple[object, ...]:
    """Sort Area_2 before Area_10, and rooms of an area by their names."""
    area, _, name = room.partition("/")
    suffix = area.removeprefix("Area_")
    return (not suffix.isdecimal(), int(suffix) if suffix.isdecimal() else 0, area, name)


def convert_labels(values: np.ndarray, num_points: int, source: str) -> Int[np.ndarray, " n"]:
    """Return labels as int64, -1 for points without one.

    Raises ValueError for another number of labels, and for values that are not integers.
    """
    if values.dtype.kind not in "iuf" or values.size != num_points:
        raise ValueError(
            f"{source}: has {values.size:,} labels of type {values.dtype}, expected "
            f"{num_points:,} numbers, one for each point: copy it again"
        )
    flat = values.reshape(-1)
    with np.errstate(invalid="ignore"):
        labels = flat.astype(np.int64)
    if len(wrong := np.flatnonzero(labels != flat)):
        raise ValueError(
            f"{source}: label {flat[wrong[0]]} (number {wrong[0]}) is not the number of a class: "
            "the label must be the last column, an integer"
        )
    labels[np.isin(labels, IGNORED_LABELS)] = -1
    return labels
