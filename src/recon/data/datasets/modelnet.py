"""ModelNet10 and ModelNet40: CAD models resampled to 10,000 points with normals, y up [1].

[1] Wu et al., arXiv:1406.5670; resampled by Qi et al., arXiv:1706.02413 (PointNet++).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.hdf5.modelnet import (
    CLASS_NAMES,
    find_hdf5_folder,
    list_hdf5,
    read_class_names,
    read_modelnet_hdf5,
)
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.arrays import read_lines
from recon.data.io.file_checks import (
    RESTORE_HINT,
    check_cloud,
    check_file,
    check_labels,
    resolve_inside,
    to_scalar,
    wrap_read_errors,
)
from recon.data.io.safe_pickle import read_pickle
from recon.data.io.text_table import read_table
from recon.ops.sampling import farthest_point_sample
from recon.teachers.prompts import build_prompts

TEXT_FOLDERS = ("", "modelnet40_normal_resampled", "ModelNet/modelnet40_normal_resampled")
CACHE_SUFFIX = "pts_fps.dat"
LAYOUT = ExpectedLayout(
    "ModelNet",
    """\
{root}/
  modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt   (or modelnet10_...)
  <class>/<class>_<number>.txt              lines x,y,z,nx,ny,nz
or, in place of the folders of classes,
  modelnet40_train_8192pts_fps.dat, modelnet40_test_8192pts_fps.dat   (or another number)
or modelnet40_ply_hdf5_2048/ with
  ply_data_train0.h5, ...                   data (n, 2048, 3), label (n, 1), optional normal
  train_files.txt, test_files.txt, shape_names.txt, ply_data_train_0_id2file.json   optional
(data=folder reads the original .off meshes)""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


def cloud_from_table(table: np.ndarray, source: str) -> Cloud:
    """Split rows x y z nx ny nz into points and normals; raise ValueError for invalid values."""
    normals = check_cloud(table[:, 3:], f"{source} (normals)") if table.shape[1] >= 6 else None
    return Cloud(check_cloud(table[:, :3], source), normals)


def _check_number_of_classes(number: int) -> None:
    if number not in CLASS_NAMES:
        raise ValueError(f"ModelNet has 10 or 40 classes, not {number}")


def _count(path: Path) -> int:
    """Return the number of points of a cache, by its name."""
    digits = path.name.removesuffix(CACHE_SUFFIX).rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def find_originals(root: Path, number_of_classes: int) -> Path | None:
    """Return the folder of the text files or of a cache, None if there is none."""
    name = f"modelnet{number_of_classes}"
    folders = [root / base for base in TEXT_FOLDERS]
    patterns = (f"{name}_shape_names.txt", f"{name}_*{CACHE_SUFFIX}")
    return next((f for p in patterns for f in folders if any(f.glob(p))), None)


def find_hdf5(root: Path, number_of_classes: int) -> Path | None:
    """Return the folder of HDF5 files; None if there is none, or other files come first."""
    if find_originals(root, number_of_classes) is not None:
        return None
    return find_hdf5_folder(root, number_of_classes)


class ModelNet(PointCloudDataset):
    """Read one split of ModelNet, train or test: text files, else the .dat cache, else HDF5 files.

    `num_fps_points` keeps that many points by farthest point sampling, starting with the first
    point (None keeps all). The cache is stored in that order: its first points are kept.
    """

    _clouds: Sequence[np.ndarray] | None = None
    _is_fps_order = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        number_of_classes: int = 40,
        num_fps_points: int | None = None,
    ) -> None:
        _check_number_of_classes(number_of_classes)
        self.number_of_classes, self.num_fps_points = number_of_classes, num_fps_points
        folder = find_hdf5(Path(root), number_of_classes)
        if folder is None:
            self._open_originals(Path(root), split)
        else:
            self._open_hdf5(folder, split)

    def _open_originals(self, root: Path, split: str) -> None:
        name = f"modelnet{self.number_of_classes}"
        names_path = root / f"{name}_shape_names.txt"
        folder = find_originals(root, self.number_of_classes)
        self.root = LAYOUT.require(names_path, root).parent if folder is None else folder
        names_path = self.root / names_path.name
        self.classes = CLASS_NAMES[self.number_of_classes]
        if names_path.is_file():
            self.classes = read_lines(names_path)
        if len({*self.classes}) < len(self.classes):
            raise ValueError(f"{names_path}: lists a class twice: {RESTORE_HINT}")
        cache = max(self.root.glob(f"{name}_{split}_*{CACHE_SUFFIX}"), key=_count, default=None)
        split_path = self.root / f"{name}_{split}.txt"
        names = read_lines(split_path) if split_path.is_file() or not cache else None
        # The text files are the originals; the cache is used if they are missing.
        self._split_path = split_path
        first_path = names and self._cloud_path(names[0])
        if cache and not (first_path and first_path.is_file()):
            self._open_cache(cache, split, names)
        else:
            self._open_text_files(names or [])

    def _open_hdf5(self, folder: Path, split: str) -> None:
        if not list_hdf5(folder, split):
            raise FileNotFoundError(
                f"{folder / f'ply_data_{split}0.h5'}: not found: copy the files of this split there"
            )
        rows = read_modelnet_hdf5(folder, split, self.number_of_classes)
        self.classes = read_class_names(folder, self.number_of_classes)
        self.root, self.in_memory = folder, True
        self._clouds, self.labels, self.ids, self._sources = rows

    def _cloud_path(self, name: str) -> Path:
        return resolve_inside(self.root, f"{name.rpartition('_')[0]}/{name}.txt", self._split_path)

    def _open_text_files(self, names: list[str]) -> None:
        class_indices = {name: index for index, name in enumerate(self.classes)}
        for name in names:
            if name.rpartition("_")[0] not in class_indices:
                raise ValueError(
                    f"{self._split_path}: {name!r} belongs to none of the {len(class_indices)} "
                    "classes: correct or remove this entry"
                )
        self.ids = names
        labels = [class_indices[name.rpartition("_")[0]] for name in names]
        self.labels = np.array(labels, np.int64)

    def _open_cache(self, path: Path, split: str, names: list[str] | None) -> None:
        content = read_pickle(check_file(path))
        are_lists = isinstance(content, list | tuple) and [isinstance(x, list) for x in content]
        if are_lists != [True, True] or not len(content[0]) == len(content[1]) > 0:
            raise ValueError(
                f"{path}: does not contain a list of clouds and a list of labels of equal length: "
                f"{RESTORE_HINT}"
            )
        clouds, labels = content
        self._clouds, self._is_fps_order, self.in_memory = clouds, True, True
        self._sources = [path] * len(clouds)
        with wrap_read_errors(path, "list of labels"):
            values = np.array([to_scalar(label) for label in labels])
        self.labels = check_labels(values, len(clouds), len(self.classes), str(path))
        has_names = names is not None and len(names) == len(clouds)
        self.ids = names if names and has_names else [f"{split}-{i}" for i in range(len(clouds))]

    def file_paths(self, index: int) -> list[Path]:
        return [self._cloud_path(self.ids[index]) if self._clouds is None else self._sources[index]]

    def cloud(self, index: int) -> Cloud:
        if self._clouds is not None:
            source, table = f"{self._sources[index]} ({self.ids[index]})", self._clouds[index]
            check_cloud(table, source)
        else:
            path = LAYOUT.require(self._cloud_path(self.ids[index]), self.root)
            source, table = str(path), read_table(path, columns=(3, 6))
        cloud = cloud_from_table(table, source)
        if self.num_fps_points is None or self.num_fps_points == len(cloud.points):
            return cloud
        if self.num_fps_points > len(cloud.points):
            raise ValueError(
                f"{source}: has {len(cloud.points)} points, fewer than "
                f"data.num_fps_points={self.num_fps_points}: lower it"
            )
        if self._is_fps_order:
            return cloud.take(slice(self.num_fps_points))
        rows = farthest_point_sample(torch.from_numpy(cloud.points)[None], self.num_fps_points)[0]
        return cloud.take(rows.numpy())

    def texts(self, index: int) -> list[str]:
        return build_prompts(self.classes[self.labels[index]].replace("_", " "))

    def category(self, index: int) -> int:
        return int(self.labels[index])


class ModelNetDataModule(PointCloudDataModule):
    """Provide batches of ModelNet40, or of ModelNet10 with `number_of_classes=10`."""

    splits = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}

    def __init__(
        self,
        root: str | Path,
        *,
        number_of_classes: int = 40,
        num_fps_points: int | None = None,
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        super().__init__(root, test_split=test_split, **loading)
        _check_number_of_classes(number_of_classes)
        self.number_of_classes, self.num_fps_points = number_of_classes, num_fps_points
        is_hdf5 = find_hdf5(self.root, number_of_classes) is not None
        self.published_sizes = (
            {"train": 9_840 if is_hdf5 else 9_843, "test": 2_468}
            if number_of_classes == 40
            else {"train": 3_991, "test": 908}
        )

    def settings(self) -> dict[str, Any]:
        return {"number_of_classes": self.number_of_classes, "num_fps_points": self.num_fps_points}

    def read_part(self, part: str) -> ModelNet:
        return ModelNet(
            self.root,
            part,
            number_of_classes=self.number_of_classes,
            num_fps_points=self.num_fps_points,
        )
