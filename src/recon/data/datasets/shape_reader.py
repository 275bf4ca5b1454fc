"""Read shape files by the options of a data set or program, with the up axis that they declare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recon.data.dataset import Cloud
from recon.data.io.points.table import DEFAULT_OPTIONS, ReadOptions
from recon.data.io.shape import read_shape
from recon.data.orientation import TURNED_NOTE, turn_cloud
from recon.data.transforms import AXES, axis_index

AUTO_UP = "auto"
"""Value of the option `up` for the axis that a file declares."""
DEFAULT_UP = "y"
"""Up axis of files that declare none."""


class ShapeReader(NamedTuple):
    """Read files with the options of a data set.

    `up` is the up axis of the files: x, y or z. With `auto`, clouds of files that declare another
    axis than y are turned to y, and files that declare none are taken as y up. `num_surface_points`
    points are sampled from a mesh.
    """

    num_surface_points: int = 8192
    up: str = AUTO_UP
    options: ReadOptions = DEFAULT_OPTIONS

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "ShapeReader":
        """Build a reader from options by name; those that are missing have their defaults.

        Raises ValueError for an invalid one.
        """
        names = {name: options[name] for name in cls._fields[:2] if name in options}
        read = {name: options[name] for name in ReadOptions._fields if name in options}
        if read.get("columns") is not None and not isinstance(read["columns"], str):
            read["columns"] = tuple(read["columns"])
        return cls(**names, options=ReadOptions(**read)).check()

    def check(self) -> "ShapeReader":
        """Return the reader; raise ValueError for an invalid option."""
        if self.num_surface_points < 1:
            raise ValueError(
                f"num_surface_points must be at least 1, got {self.num_surface_points}"
            )
        if self.options.on_nan not in ("drop", "error"):
            raise ValueError(f"on_nan must be drop or error, got {self.options.on_nan!r}")
        return self._replace(up=AUTO_UP if self.up == AUTO_UP else AXES[axis_index(self.up)])

    @property
    def cloud_up(self) -> str:
        """Up axis of the clouds that `read` returns."""
        return DEFAULT_UP if self.up == AUTO_UP else self.up

    def read(self, path: Path) -> Cloud:
        """Read one cloud; raise ValueError or FileNotFoundError that names the file."""
        cloud = read_shape(path, self.num_surface_points, self.options)
        if self.up != AUTO_UP or cloud.up in (None, DEFAULT_UP):
            return cloud
        note = TURNED_NOTE.format(cloud.up, DEFAULT_UP)
        turned = turn_cloud(cloud, cloud.up or DEFAULT_UP, DEFAULT_UP)
        return turned._replace(notes=(*turned.notes, note))

    def settings(self) -> dict[str, Any]:
        """Return the options that the clouds depend on, without defaults that came later."""
        values = {"num_surface_points": self.num_surface_points, "up": self.up}
        defaults, options = DEFAULT_OPTIONS._asdict(), self.options._asdict()
        changed = {k: v for k, v in options.items() if v != defaults[k]}
        return values | {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
