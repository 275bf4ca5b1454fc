"""ShapeNetPart: 16,881 shapes of 16 classes, with point labels of 50 parts, y up [1].

Shapes of one's own are read in the same layouts, with classes and parts of one's own.

[1] Yi et al., A Scalable Active Framework for Region Annotation, SIGGRAPH Asia 2016.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.hdf5.shapenetpart import ShapeNetPartHDF5, find_hdf5_folder, list_hdf5
from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.layouts.class_subset import ClassSubset, to_names, warn_once
from recon.data.datasets.layouts.part_table import (
    CLASS_TO_PARTS,
    PARTS_FILE,
    POINT_CLASSES,
    SYNSETS,
    build_part_table,
    check_classes_have_parts,
    read_own_parts,
)
from recon.data.datasets.layouts.room_layout import convert_labels
from recon.data.datasets.modelnet import cloud_from_table
from recon.data.io.arrays import read_json, read_lines
from recon.data.io.file_checks import RESTORE_HINT, resolve_inside, wrap_read_errors
from recon.data.io.text_table import read_table
from recon.data.prepared.layout import is_prepared, prepared_splits
from recon.utils.deprecation import renamed_arguments
from recon.utils.printable import check_printable

__all__ = ["CLASS_TO_PARTS", "POINT_CLASSES", "ShapeNetPart", "ShapeNetPartDataModule"]

FOLDERS = (
    "shapenetcore_partanno_segmentation_benchmark_v0_normal",
    "shapenetcore_partanno_segmentation_benchmark_v0",
)
CATEGORIES_FILE = "synsetoffset2category.txt"
LAYOUT = ExpectedLayout(
    "ShapeNetPart",
    """\
{root}/
  synsetoffset2category.txt                                lines <class> <synset>
  train_test_split/shuffled_{{train,val,test}}_file_list.json   shape_data/<synset>/<id>
  <synset>/<id>.txt                                        lines x y z nx ny nz part
or
  <synset>/points/<id>.pts, <synset>/points_label/<id>.seg   (version 0, without normals)
or
  ply_data_train0.h5, ..., ply_data_val0.h5, ply_data_test0.h5   (HDF5)
With classes of your own, {root}/parts.json maps each class to its parts""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


class ShapeNetPart(PointCloudDataset):
    """Read one split, train, val or test: clouds of about 2,500 points with normals and parts.

    `parts` is described at `read_own_parts`. Shapes of classes of ShapeNetPart that the list of
    classes lacks are left out. Without this list, folders are named as the classes in `parts`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        parts: Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        self.root = _find_text_folder(Path(root)) or Path(root)
        own = read_own_parts(self.root, parts)
        path = self.root / CATEGORIES_FILE
        if own is None or path.is_file():
            self._read_classes(LAYOUT.require(path, self.root))
            if unused := [name for name in own or () if name not in self.classes]:
                source = self.root / PARTS_FILE if parts is None else parts
                source = source if isinstance(source, str | Path) else "data.parts"
                raise ValueError(
                    f"{source}: has parts of {unused[0]!r}, which is none of the classes "
                    f"{', '.join(self.classes)} in {path}: rename or remove it"
                )
        else:
            self.classes, self._synsets = list(own), {n: row for row, n in enumerate(own)}
        self._read_split(split)
        self.has_local_labels = bool(self.ids) and self._find_points_file(self.ids[0]).is_file()
        self._table = build_part_table(self.classes, own, local_labels=self.has_local_labels)
        self.point_classes, self.parts = self._table.point_classes, self._table.parts
        self.is_own = self._table.is_own
        present = [self.classes[label] for label in np.unique(self.labels)]
        check_classes_have_parts(self._table, present, self.root)

    def _read_classes(self, path: Path) -> None:
        rows = [line.split() for line in read_lines(path)]
        with wrap_read_errors(path, "list of classes and synsets"):
            self._synsets = {synset: index for index, (_, synset) in enumerate(rows)}
        self.classes = [name for name, _ in rows]

    def _read_split(self, split: str) -> None:
        split_path = _list_path(self.root, split)
        entries = read_split_list(LAYOUT.require(split_path, self.root))
        self._num_left_out, self._num_entries, self._split_path = 0, len(entries), split_path
        ids, labels = [], []
        for entry in entries:
            synset, _, name = entry.removeprefix("shape_data/").partition("/")
            if synset not in self._synsets and synset in SYNSETS.values():
                self._num_left_out += 1
                continue
            if synset not in self._synsets:
                raise ValueError(
                    f"{split_path}: {entry!r} belongs to none of the {len(self._synsets)} classes: "
                    "correct or remove this entry"
                )
            resolve_inside(self.root, f"{synset}/{name}.txt", split_path)
            ids.append(f"{synset}/{name}")
            labels.append(self._synsets[synset])
        self.ids, self.labels = ids, np.array(labels, dtype=np.int64)

    def _find_points_file(self, shape: str) -> Path:
        """Return the file of a shape's points in version 0 of the data set."""
        folder, _, name = shape.rpartition("/")
        return self.root / folder / "points" / f"{name}.pts"

    def file_warnings(self) -> list[str]:
        if not self._num_left_out:
            return []
        return [
            f"{self._split_path}: {self._num_left_out} of {self._num_entries} shapes are left out: "
            f"{CATEGORIES_FILE} lists only the classes {', '.join(self.classes)}"
        ]

    def file_paths(self, index: int) -> list[Path]:
        if not self.has_local_labels:
            return [self.root / f"{self.ids[index]}.txt"]
        path = self._find_points_file(self.ids[index])
        return [path, path.parents[1] / "points_label" / f"{path.stem}.seg"]

    def cloud(self, index: int) -> Cloud:
        paths = [LAYOUT.require(path, self.root) for path in self.file_paths(index)]
        if self.has_local_labels:
            table, parts = read_table(paths[0], columns=(3,)), read_table(paths[1], columns=(1,))
        else:
            rows = read_table(paths[0], columns=(4, 7))
            table, parts = rows[:, :-1], rows[:, -1:]
        labels = convert_labels(parts, len(table), str(paths[-1]))
        class_name = self.classes[self.labels[index]]
        labels = self._table.convert(labels, class_name, paths[-1])
        return cloud_from_table(table, str(paths[0]))._replace(point_labels=labels)


def _find_text_folder(root: Path) -> Path | None:
    """Return `root` or one of its usual subfolders if it has a list of classes or a split."""
    for folder in (root, *(root / name for name in FOLDERS)):
        has_lists = any(_list_path(folder, split).is_file() for split in ("train", "val", "test"))
        if (folder / CATEGORIES_FILE).is_file() or has_lists:
            return folder
    return None


def _list_path(root: Path, split: str) -> Path:
    """Return the list of a split: the published .json, or `<split>.txt` in the same folder."""
    folder = root / "train_test_split"
    text = folder / f"{split}.txt"
    return text if text.is_file() else folder / f"shuffled_{split}_file_list.json"


def read_split_list(path: Path) -> list[str]:
    """Read the entries `<class folder>/<id>` of a split from a .json or .txt file."""
    if path.suffix == ".txt":
        return [line.removesuffix(".txt") for line in read_lines(path)]
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{path}: not a list of names: {RESTORE_HINT}")
    check_printable(entries, path)
    return entries


class ShapeNetPartDataModule(PointCloudDataModule):
    """Provide batches of ShapeNetPart, 2,048 points per shape, by default of train and val.

    `classes` selects some classes and their parts. `parts` maps classes of one's own to their
    parts, or is a .json file, by default parts.json beside the shapes; see `read_own_parts`.
    """

    splits = {
        "train": ["train"], "val": ["val"], "test": ["test"], "trainval": ["train", "val"],
    }  # fmt: skip
    published_sizes = {"train": 12_137, "val": 1_870, "test": 2_874}

    @renamed_arguments(size="num_points")
    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "trainval",
        test_split: Split | None = "test",
        classes: Sequence[str] | str | None = None,
        parts: Mapping[str, Any] | str | None = None,
        num_points: int | None = 2048,
        **loading: Any,
    ) -> None:
        super().__init__(root, split=split, test_split=test_split, num_points=num_points, **loading)
        self.classes = None if classes is None else to_names(classes)
        self.own_parts, self._warnings = parts, set[str]()

    def settings(self) -> dict[str, Any]:
        if is_prepared(self.root) and self.own_parts is None:
            return {}  # the prepared files have the parts
        folder = _find_text_folder(self.root) or find_hdf5_folder(self.root) or self.root
        own = read_own_parts(folder, self.own_parts)
        return {} if own is None else {"parts": {k: dict(v) for k, v in own.items()}}

    def read_part(self, part: str) -> ShapeNetPart | ShapeNetPartHDF5:
        folder = None if _find_text_folder(self.root) else find_hdf5_folder(self.root)
        shapes = (
            ShapeNetPart(self.root, part, self.own_parts)
            if folder is None
            else ShapeNetPartHDF5(folder, part, self.own_parts)
        )
        if shapes.is_own:
            self.published_sizes = {}
        return shapes

    def open_part(self, part: str) -> PointCloudDataset:
        shapes = super().open_part(part)
        warn_once(shapes.file_warnings(), self._warnings)
        return shapes

    def open_split(self, split: Split) -> PointCloudDataset:
        names = [split] if isinstance(split, str) else split
        if "trainval" in names and not self._has_val():
            warn_once([f"{self.root}: has no split val: training on train alone"], self._warnings)
            names = ["train" if name == "trainval" else name for name in names]
        shapes = super().open_split(names)
        return shapes if self.classes is None else ClassSubset(shapes, self.classes)

    def _has_val(self) -> bool:
        """Return whether the data set has its split val; unknown files count as having it."""
        if is_prepared(self.root):
            return "val" in prepared_splits(self.root)
        if (folder := _find_text_folder(self.root)) is not None:
            return _list_path(folder, "val").is_file() or not _list_path(folder, "train").is_file()
        folder = find_hdf5_folder(self.root)
        return folder is None or bool(list_hdf5(folder, "val"))

    def has_published_classes(self) -> bool:
        return tuple(self.dataset.point_classes) == POINT_CLASSES

    def stored_parts(self) -> list[str]:
        if self.classes is not None:
            warnings.warn(
                "data.classes selects classes on reading: all classes are prepared", stacklevel=2
            )
        return super().stored_parts()
