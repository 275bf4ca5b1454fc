"""Shapes by the names of files: a folder, a table that lists them, patterns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from recon.data.batch import Unreadable
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.folder import TABLES, Folder
from recon.data.io.shape import read_shape, shape_files


class Files(PointCloudDataset):
    """Single files, called as they were asked for; of meshes `count` points each."""

    def __init__(self, paths: Mapping[str, Path], *, count: int, up: str) -> None:
        self.ids, self.paths = list(paths), list(paths.values())
        self.count, self.up = count, up

    def cloud(self, index: int) -> Cloud:
        return read_shape(self.paths[index], self.count)

    def files(self, index: int) -> list[Path]:
        return [self.paths[index]]


def open_shapes(asked: str | Sequence[str], *, count: int, up: str) -> PointCloudDataset:
    """Open shapes by one name or several, in their order; `up` is their axis that points upwards.

    One folder or table gives classes too, see `Folder`, and names relative to it. Raises
    FileNotFoundError where a name finds nothing, and what `Folder` raises.
    """
    names = [asked] if isinstance(asked, str) else list(asked)
    if not names:
        raise ValueError("files=[]: name a folder, a file, or a pattern in quotes")
    if len(names) == 1:
        path = Path(names[0]).expanduser()
        if path.is_dir() or path.suffix.lower() in TABLES:
            return Folder(path, count=count, up=up)
    found = {file.as_posix(): file for name in names for file in shape_files(name)}
    return Files(found, count=count, up=up)


class WholeClouds(Dataset[Cloud | Unreadable]):
    """The clouds of a data set as they lie on disk; those that cannot be read say why."""

    def __init__(self, dataset: PointCloudDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Cloud | Unreadable:
        try:
            return self.dataset.cloud(row)
        except (ValueError, OSError) as error:
            return Unreadable(str(error))
