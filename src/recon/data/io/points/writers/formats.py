"""Write points in the format that the file's extension selects."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recon.data.io.points.table import PointTable
from recon.data.io.points.writers.binary import write_pcd, write_ply
from recon.data.io.points.writers.las import write_las, write_laz
from recon.data.io.points.writers.tables import write_npz, write_parquet
from recon.utils.atomic_write import atomic_path

WRITERS: Mapping[str, Callable[[Path, PointTable, Mapping[int, str]], Sequence[str]]] = {
    ".las": write_las,
    ".laz": write_laz,
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".pcd": write_pcd,
    ".ply": write_ply,
}
"""Writer of each file extension; it returns notes on what changed."""


def write_points(
    path: Path, table: PointTable, classes: Mapping[int, str] | None = None
) -> tuple[str, ...]:
    """Write all points with their properties, atomically; return what the format changed.

    Coordinates keep the place and the type of the table, as far as the format allows. `classes`
    names the labels. Raises ValueError that names the file.
    """
    if path.suffix.lower() not in WRITERS:
        raise ValueError(
            f"{path}: cannot be written: choose one of the formats {', '.join(sorted(WRITERS))}"
        )
    if not len(table.points):
        raise ValueError(f"{path}: there are no points to write")
    with atomic_path(path) as temporary:
        return tuple(WRITERS[path.suffix.lower()](temporary, table, classes or {}))
