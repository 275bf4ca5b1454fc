"""ModelNet10 and ModelNet40, resampled with normals: 10,000 points a shape, y up [1].

[1] Wu et al., arXiv:1406.5670; resampled by Qi et al., arXiv:1706.02413 (PointNet++).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.arrays import read_lines
from recon.data.io.file_checks import (
    COPY_AGAIN_HINT,
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

FOLDER = "modelnet40_normal_resampled"
LAYOUT = ExpectedLayout(
    "ModelNet",
    """\
{root}/
  modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt   (or modelnet10_...)
  <class>/<class>_<number>.txt              lines x,y,z,nx,ny,nz
or, in place of the folders of classes,
  modelnet40_train_8192pts_fps.dat, modelnet40_test_8192pts_fps.dat""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


def cloud_from_table(table: np.ndarray, source: str) -> Cloud:
    """Split rows x y z nx ny nz into points and normals; raise ValueError that names bad ones."""
    normals = check_cloud(table[:, 3:], f"{source} (normals)") if table.shape[1] >= 6 else None
    return Cloud(check_cloud(table[:, :3], source), normals)


class ModelNet(PointCloudDataset):
    """One list of ModelNet, train or test, from the text tree, else from the .dat cache.

    `count` keeps as many points by farthest point sampling, starting with the first (None: all).
    The cache is in that order already: its first points are taken.
    """

    _clouds: Sequence[np.ndarray] | None = None

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        number_of_classes: int = 40,
        num_fps_points: int | None = None,
    ) -> None:
        if number_of_classes not in (10, 40):
            raise ValueError(f"ModelNet has 10 or 40 classes, not {number_of_classes}")
        name, self.num_fps_points = f"modelnet{number_of_classes}", num_fps_points
        mark = f"{name}_shape_names.txt"
        self.root = LAYOUT.find_root(Path(root), mark, [FOLDER, f"ModelNet/{FOLDER}"])
        self.classes = read_lines(self.root / mark)
        if len({*self.classes}) < len(self.classes):
            raise ValueError(f"{self.root / mark}: lists a class twice: {COPY_AGAIN_HINT}")
        cache = self.root / f"{name}_{split}_8192pts_fps.dat"
        listed = self.root / f"{name}_{split}.txt"
        names = read_lines(listed) if listed.is_file() or not cache.is_file() else None
        # The text files are the originals; the cache serves where they are not there.
        self._list = listed
        first = names and self._path(names[0])
        if cache.is_file() and not (first and first.is_file()):
            self._open_cache(cache, split, names)
        else:
            self._open_tree(listed, names or [])

    def _path(self, name: str) -> Path:
        return resolve_inside(self.root, f"{name.rpartition('_')[0]}/{name}.txt", self._list)

    def _open_tree(self, listed: Path, names: list[str]) -> None:
        number = {name: row for row, name in enumerate(self.classes)}
        for name in names:
            if name.rpartition("_")[0] not in number:
                raise ValueError(
                    f"{listed}: {name!r} is of none of the {len(number)} classes: {COPY_AGAIN_HINT}"
                )
        self.ids = names
        self.labels = np.array([number[name.rpartition("_")[0]] for name in names], np.int64)

    def _open_cache(self, path: Path, split: str, names: list[str] | None) -> None:
        held = read_pickle(check_file(path))
        lists = isinstance(held, list | tuple) and [isinstance(part, list) for part in held]
        if lists != [True, True] or not len(held[0]) == len(held[1]) > 0:
            raise ValueError(
                f"{path}: holds no list of clouds with a list of labels: {COPY_AGAIN_HINT}"
            )
        clouds, labels = held
        self._clouds, self._source, self.in_memory = clouds, path, True
        with wrap_read_errors(path, "list of labels"):
            numbers = np.array([to_scalar(label) for label in labels])
        self.labels = check_labels(numbers, len(clouds), len(self.classes), str(path))
        fits = names is not None and len(names) == len(clouds)
        self.ids = names if names and fits else [f"{split}-{i}" for i in range(len(clouds))]

    def file_paths(self, index: int) -> list[Path]:
        return [self._path(self.ids[index]) if self._clouds is None else self._source]

    def cloud(self, index: int) -> Cloud:
        if self._clouds is not None:
            source, table = f"{self._source} ({self.ids[index]})", self._clouds[index]
            check_cloud(table, source)
        else:
            path = LAYOUT.require(self._path(self.ids[index]), self.root)
            source, table = str(path), read_table(path, columns=(3, 6))
        cloud = cloud_from_table(table, source)
        if self.num_fps_points is None or self.num_fps_points == len(cloud.points):
            return cloud
        if self.num_fps_points > len(cloud.points):
            raise ValueError(
                f"{source}: has {len(cloud.points)} points, {self.num_fps_points} are asked for"
            )
        if self._clouds is not None:
            return cloud.take(slice(self.num_fps_points))
        rows = farthest_point_sample(torch.from_numpy(cloud.points)[None], self.num_fps_points)[0]
        return cloud.take(rows.numpy())

    def texts(self, index: int) -> list[str]:
        return build_prompts(self.classes[self.labels[index]].replace("_", " "))

    def category(self, index: int) -> int:
        return int(self.labels[index])


class ModelNetDataModule(PointCloudDataModule):
    """Batches of ModelNet40, or of ModelNet10 with `number_of_classes=10`."""

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
        self.number_of_classes, self.num_fps_points = number_of_classes, num_fps_points
        self.published_sizes = (
            {"train": 9_843, "test": 2_468}
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
