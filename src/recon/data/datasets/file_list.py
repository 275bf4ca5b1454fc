"""Shapes by the names of files: a folder, a table that lists them, patterns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from recon.data.batch import UnreadableSample
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.folder import TABLE_SUFFIXES, ShapeFolder
from recon.data.io.shape import find_shape_files, read_shape


class FileList(PointCloudDataset):
    """Single files, called as they were asked for; of meshes `count` points each."""

    def __init__(self, paths: Mapping[str, Path], *, num_surface_points: int, up: str) -> None:
        self.ids, self.paths = list(paths), list(paths.values())
        self.num_surface_points, self.up = num_surface_points, up

    def cloud(self, index: int) -> Cloud:
        return read_shape(self.paths[index], self.num_surface_points)

    def file_paths(self, index: int) -> list[Path]:
        return [self.paths[index]]


def open_shape_files(
    patterns: str | Sequence[str], *, num_surface_points: int, up: str
) -> PointCloudDataset:
    """Open shapes by one name or several, in their order; `up` is their axis that points upwards.

    One folder or table gives classes too, see `Folder`, and names relative to it. Raises
    FileNotFoundError where a name finds nothing, and what `Folder` raises.
    """
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    if not names:
        raise ValueError("files=[]: name a folder, a file, or a pattern in quotes")
    if len(names) == 1:
        path = Path(names[0]).expanduser()
        if path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
            return ShapeFolder(path, num_surface_points=num_surface_points, up=up)
    found = {file.as_posix(): file for name in names for file in find_shape_files(name)}
    return FileList(found, num_surface_points=num_surface_points, up=up)


class RawCloudDataset(Dataset[Cloud | UnreadableSample]):
    """The clouds of a data set as they lie on disk; those that cannot be read say why."""

    def __init__(self, dataset: PointCloudDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Cloud | UnreadableSample:
        try:
            return self.dataset.cloud(row)
        except (ValueError, OSError) as error:
            return UnreadableSample(str(error))
