"""Open shape files by name, glob pattern, folder or table, as for `recon.embed`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from recon.data.batch import UnreadableSample
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.folder import ShapeFolder
from recon.data.datasets.shape_listing import TABLE_SUFFIXES, is_shape_table
from recon.data.datasets.shape_reader import ShapeReader
from recon.data.io.points.table import DEFAULT_OPTIONS, ReadOptions
from recon.data.io.shape import find_shape_files


class FileList(PointCloudDataset):
    """Read single files under given names."""

    def __init__(
        self,
        paths: Mapping[str, Path],
        *,
        num_surface_points: int,
        up: str,
        options: ReadOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.ids, self.paths = list(paths), list(paths.values())
        self.reader = ShapeReader(num_surface_points, up, options).check()
        self.up = self.reader.cloud_up

    def cloud(self, index: int) -> Cloud:
        return self.reader.read(self.paths[index])

    def file_paths(self, index: int) -> list[Path]:
        return [self.paths[index]]


def open_shape_files(
    patterns: str | Sequence[str],
    *,
    num_surface_points: int,
    up: str,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> PointCloudDataset:
    """Open the shapes of one or more file names or patterns, in this order.

    The other arguments are those of `ShapeReader`.

    A single folder or table is opened as a `ShapeFolder`, with classes and relative names. Raises
    FileNotFoundError if a name matches nothing, ValueError without names, and the errors of
    `ShapeFolder`.
    """
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    if not names:
        raise ValueError("files=[]: give a folder, a file, or a quoted pattern")
    if len(names) == 1:
        path = Path(names[0]).expanduser()
        is_table = path.suffix.lower() in TABLE_SUFFIXES
        if path.is_dir() or (is_table and (not path.is_file() or is_shape_table(path))):
            return ShapeFolder(path, num_surface_points=num_surface_points, up=up, options=options)
    paths = {file.as_posix(): file for name in names for file in find_shape_files(name)}
    return FileList(paths, num_surface_points=num_surface_points, up=up, options=options)


class RawCloudDataset(Dataset[Cloud | UnreadableSample]):
    """Return the clouds of a data set as stored on disk, and `UnreadableSample` for failures."""

    def __init__(self, dataset: PointCloudDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Cloud | UnreadableSample:
        try:
            return self.dataset.cloud(row)
        except (ValueError, OSError) as error:
            return UnreadableSample(str(error))
