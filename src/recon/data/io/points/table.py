"""Content of point files before its check and normalization: points, normals, colors and others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num


class ReadOptions(NamedTuple):
    """How to read files that do not tell everything themselves."""

    columns: Sequence[str] | None = None
    """Names of the columns of arrays, texts and binary tables, in order; None finds them."""
    on_nan: str = "drop"
    """What to do with points that are NaN or infinite: `drop` or `error`."""
    topic: str | None = None
    """Topic of a ROS bag; None takes the only one with clouds."""
    frame: int = 0
    """Number of the cloud in a file of several."""


DEFAULT_OPTIONS = ReadOptions()


class LazyColumns(Mapping[str, np.ndarray]):
    """Columns by name, each read when it is accessed."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __reduce__(self) -> tuple[type, tuple[dict[str, np.ndarray]]]:
        return dict, ({**self},)  # pickles as what it reads


class PointTable(NamedTuple):
    """Points of one file, in its own units, types and order."""

    points: Num[np.ndarray, "n 3"]
    normals: Num[np.ndarray, "n 3"] | None = None
    colors: Num[np.ndarray, "n 3"] | None = None
    """RGB in the file's range: [0, 1], [0, 255] or [0, 65535]."""
    extra: Mapping[str, Num[np.ndarray, " n"]] = {}
    """All other properties of the points by name, such as intensity and label."""
    up: str | None = None
    """Up axis that the file, or its format, declares."""
    unit_meters: float | None = None
    """Length of the file's unit in meters, if it or its format declares it."""
    notes: tuple[str, ...] = ()
    """What reading omitted or assumed, one sentence each."""

    def take(self, rows: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> "PointTable":
        """Return the selected points with their properties; `rows` are indices or a mask."""
        return self._replace(
            points=self.points[rows],
            normals=None if self.normals is None else self.normals[rows],
            colors=None if self.colors is None else self.colors[rows],
            extra={name: values[rows] for name, values in self.extra.items()},
        )
