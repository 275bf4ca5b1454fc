"""ShapeNetPart as HDF5 files of 2,048 points a shape, without normals [1].

[1] Qi et al., arXiv:1612.00593 (PointNet), shapenet_part_seg_hdf5_data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.hdf5.numbered_files import list_numbered_files
from recon.data.datasets.layouts.part_table import (
    CLASS_TO_PARTS,
    build_part_table,
    check_classes_have_parts,
    read_own_parts,
)
from recon.data.datasets.layouts.room_layout import convert_labels
from recon.data.io.arrays import read_json, read_lines
from recon.data.io.file_checks import (
    RESTORE_HINT,
    check_cloud,
    check_labels,
    wrap_read_errors,
)
from recon.data.io.hdf5 import read_hdf5

FOLDERS = ("", "shapenet_part_seg_hdf5_data", "hdf5_data", "shapenetpart_hdf5_2048")
SPLITS = ("train", "val", "test")
CLASSES_FILE, IDS_FILE = "all_object_categories.txt", "catid_partid_to_overallid.json"


def find_hdf5_folder(root: Path) -> Path | None:
    """Return `root` or a common folder in it if it has the HDF5 files of a split, else None."""
    folders = (root / name for name in FOLDERS)
    return next((f for f in folders if any(list_hdf5(f, split) for split in SPLITS)), None)


def list_hdf5(folder: Path, split: str) -> list[Path]:
    """List the files of a split, by its list of files, or else by their names and numbers."""
    return list_numbered_files(folder, split, f"{split}_hdf5_file_list.txt")


class ShapeNetPartHDF5(PointCloudDataset):
    """Read one split, train, val or test; `parts` is described at `read_own_parts`.

    Without all_object_categories.txt, classes are those of the table of parts, else of
    ShapeNetPart, in alphabetical order. `catid_partid_to_overallid.json` numbers the parts.
    """

    in_memory = True

    def __init__(
        self, folder: Path, split: str, parts: Mapping[str, Any] | str | Path | None = None
    ) -> None:
        self.root, own = folder, read_own_parts(folder, parts)
        self.classes, self._synsets = _read_classes(folder)
        if not self.classes:
            self.classes = list(own or CLASS_TO_PARTS)
        self._table = build_part_table(self.classes, own)
        self.point_classes, self.parts = self._table.point_classes, self._table.parts
        self.is_own = self._table.is_own
        self._overall_ids = {} if self.is_own else _read_overall_ids(folder, self._synsets)
        self._rows: list[tuple[np.ndarray, np.ndarray, Path]] = []
        paths, labels = list_hdf5(folder, split), [np.empty(0, dtype=np.int64)]
        if not paths:
            raise FileNotFoundError(
                f"{folder / f'ply_data_{split}0.h5'}: not found: copy the files of this split there"
            )
        for path in paths:
            labels.append(self._read_file(path))
        self.labels = np.concatenate(labels)
        self.ids = [f"{split}-{row}" for row in range(len(self._rows))]
        present = [self.classes[label] for label in np.unique(self.labels)]
        check_classes_have_parts(self._table, present, folder)

    def _read_file(self, path: Path) -> np.ndarray:
        content = read_hdf5(path, ("data", "label"), ("pid", "seg"))
        points, parts = content["data"], content.get("pid", content.get("seg"))
        if parts is None:
            raise ValueError(
                f"{path}: has no labels of parts, `pid` or `seg`: use a copy of ShapeNetPart"
            )
        if points.ndim != 3 or points.shape[2] < 3 or parts.shape[:2] != points.shape[:2]:
            raise ValueError(
                f"{path}: `data` has shape {points.shape} and the parts {parts.shape}, expected "
                f"(n, 2048, 3) and (n, 2048): {RESTORE_HINT}"
            )
        labels = check_labels(content["label"], len(points), len(self.classes), str(path))
        self._rows += [(cloud, part, path) for cloud, part in zip(points, parts, strict=True)]
        return labels

    def file_paths(self, index: int) -> list[Path]:
        return [self._rows[index][2]]

    def cloud(self, index: int) -> Cloud:
        points, parts, path = self._rows[index]
        source, class_name = f"{path} ({self.ids[index]})", self.classes[self.labels[index]]
        labels = convert_labels(parts, len(points), source)
        if class_name in self._overall_ids:
            labels = _renumber(labels, self._overall_ids[class_name], CLASS_TO_PARTS[class_name])
        labels = self._table.convert(labels, class_name, source)
        return Cloud(check_cloud(points, source), point_labels=labels)


def _read_classes(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names and synsets of classes in the order of their labels, [] without a list."""
    path = folder / CLASSES_FILE
    rows = [line.split() for line in read_lines(path)] if path.is_file() else []
    with wrap_read_errors(path, "list of classes and synsets"):
        return [name for name, _ in rows], [synset for _, synset in rows]


def _read_overall_ids(folder: Path, synsets: list[str]) -> dict[str, list[int]]:
    """Return the labels of each class's parts, where they differ from those of the text files."""
    path = folder / IDS_FILE
    if not path.is_file() or not synsets:
        return {}
    table, classes = read_json(path), _read_classes(folder)[0]
    with wrap_read_errors(path, "table of parts"):
        keys = {tuple(key.split("_")): int(value) for key, value in table.items()}
        numbers = {
            name: [keys[synset, str(part + 1)] for part in range(len(CLASS_TO_PARTS[name]))]
            for name, synset in zip(classes, synsets, strict=True)
        }
    return {name: ids for name, ids in numbers.items() if ids != list(CLASS_TO_PARTS[name])}


def _renumber(labels: np.ndarray, old: list[int], new: range) -> np.ndarray:
    """Replace each label of `old` by that of `new`; others become an unknown label."""
    renumbered = np.where(labels == -1, -1, len(CLASS_TO_PARTS) ** 2)
    for before, after in zip(old, new, strict=True):
        renumbered[labels == before] = after
    return renumbered
