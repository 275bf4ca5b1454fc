"""Open shape files by name, glob pattern, folder or table, as for `recon.embed`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from recon.data.batch import UnreadableSample
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.folder import ShapeFolder
from recon.data.datasets.shape_listing import TABLE_SUFFIXES
from recon.data.io.shape import find_shape_files, read_shape
from recon.data.transforms import AXES, axis_index


class FileList(PointCloudDataset):
    """Read single files under given names; meshes are sampled with `num_surface_points` points."""

    def __init__(self, paths: Mapping[str, Path], *, num_surface_points: int, up: str) -> None:
        self.ids, self.paths = list(paths), list(paths.values())
        self.num_surface_points, self.up = num_surface_points, AXES[axis_index(up)]

    def cloud(self, index: int) -> Cloud:
        return read_shape(self.paths[index], self.num_surface_points)

    def file_paths(self, index: int) -> list[Path]:
        return [self.paths[index]]


def open_shape_files(
    patterns: str | Sequence[str], *, num_surface_points: int, up: str
) -> PointCloudDataset:
    """Open the shapes of one or more file names or patterns, in this order, with up axis `up`.

    A single folder or table is opened as a `ShapeFolder`, with classes and relative names. Raises
    FileNotFoundError if a name matches nothing, ValueError without names, and the errors of
    `ShapeFolder`.
    """
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    if not names:
        raise ValueError("files=[]: give a folder, a file, or a quoted pattern")
    if len(names) == 1:
        path = Path(names[0]).expanduser()
        if path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
            return ShapeFolder(path, num_surface_points=num_surface_points, up=up)
    paths = {file.as_posix(): file for name in names for file in find_shape_files(name)}
    return FileList(paths, num_surface_points=num_surface_points, up=up)


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
