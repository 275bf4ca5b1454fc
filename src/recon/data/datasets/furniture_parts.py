"""Bundled part segmentation data set: 108 models with part labels from their material names.

See docs/furniture.md for how the labels were made and how reliable they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.furniture import ARCHIVE_NAME, Furniture, asset_path, read_archive
from recon.data.datasets.layouts.class_subset import ClassSubset, to_names
from recon.data.io.file_checks import wrap_read_errors

PARTS_ARCHIVE_NAME = "parts.npz"


class FurnitureParts(Furniture):
    """Read models of 8 classes with part labels: 74 in train, 34 in test; -1 is unknown.

    There are 28 parts, named `<class>/<part>`. `root` is a folder with files to read instead.
    """

    def __init__(self, split: str = "train", *, root: str | Path | None = None) -> None:
        super().__init__([split], root=root)
        path = Path(root) / PARTS_ARCHIVE_NAME if root else asset_path(PARTS_ARCHIVE_NAME)
        archive = read_archive(path)
        with wrap_read_errors(path, "table of parts"):
            self._select_shapes_with_parts(archive)

    def _select_shapes_with_parts(self, archive: dict[str, np.ndarray]) -> None:
        part_rows = {int(row): part_row for part_row, row in enumerate(archive["index"])}
        rows = np.array([i for i, row in enumerate(self.rows) if int(row) in part_rows])
        labels = archive["part"][[part_rows[int(self.rows[i])] for i in rows]]
        self._point_labels = labels.astype(np.int64)
        self.point_classes = archive["part_names"].tolist()
        part_to_class = [name.split("/")[0] for name in self.point_classes]
        classes = list(dict.fromkeys(part_to_class))
        class_indices = {name: index for index, name in enumerate(classes)}
        self.parts = {
            name: [part for part, class_name in enumerate(part_to_class) if class_name == name]
            for name in classes
        }
        self.labels = np.array([class_indices[self.classes[self.labels[row]]] for row in rows])
        self.classes = classes
        self.rows, self.families = self.rows[rows], self.families[rows]
        self.ids = [self.ids[row] for row in rows]
        self.names = [self.names[row] for row in rows]
        self.captions = [self.captions[row] for row in rows]
        self.sizes_cm = self.sizes_cm[rows]

    def cloud(self, index: int) -> Cloud:
        return super().cloud(index)._replace(point_labels=self._point_labels[index])


class FurniturePartsDataModule(PointCloudDataModule):
    """Provide batches of bundled models with part labels; `classes` selects some classes."""

    splits = {name: [name] for name in ("train", "test")}
    published_sizes = {"train": 74, "test": 34}

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: Split = "train",
        classes: Sequence[str] | str | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(root or asset_path(ARCHIVE_NAME).parent, split=split, **loading)
        self.classes = None if classes is None else to_names(classes)

    def open_split(self, split: Split) -> PointCloudDataset:
        shapes = super().open_split(split)
        return shapes if self.classes is None else ClassSubset(shapes, self.classes)

    def read_part(self, part: str) -> FurnitureParts:
        return FurnitureParts(part, root=self.root)
