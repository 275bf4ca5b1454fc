"""Parts of 108 embedded models: what their materials' names tell, point by point.

How they were made and how far they can be trusted: docs/furniture.md.
"""

from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud
from recon.data.datasets.furniture import ARCHIVE_NAME, Furniture, asset_path, read_archive
from recon.data.io.file_checks import wrap_read_errors

PARTS_ARCHIVE_NAME = "parts.npz"


class FurnitureParts(Furniture):
    """The models of 8 classes whose points have parts: 74 in train, 34 in test, -1 where unknown.

    28 kinds of parts, named `<class>/<part>`; `root` is a folder with other copies of the files.
    """

    def __init__(self, split: str = "train", *, root: str | Path | None = None) -> None:
        super().__init__([split], root=root)
        path = Path(root) / PARTS_ARCHIVE_NAME if root else asset_path(PARTS_ARCHIVE_NAME)
        known = read_archive(path)
        with wrap_read_errors(path, "table of parts"):
            self._take_parts(known)

    def _take_parts(self, known: dict[str, np.ndarray]) -> None:
        place = {int(row): number for number, row in enumerate(known["index"])}
        rows = np.array([row for row, of_all in enumerate(self.rows) if int(of_all) in place])
        self._part = known["part"][[place[int(self.rows[row])] for row in rows]].astype(np.int64)
        self.point_classes = known["part_names"].tolist()
        owner = [name.split("/")[0] for name in self.point_classes]
        own = list(dict.fromkeys(owner))
        numbers = {name: number for number, name in enumerate(own)}
        self.parts = {n: [i for i, other in enumerate(owner) if other == n] for n in own}
        self.labels = np.array([numbers[self.classes[self.labels[row]]] for row in rows])
        self.classes = own
        self.rows, self.families = self.rows[rows], self.families[rows]
        self.ids = [self.ids[row] for row in rows]
        self.names = [self.names[row] for row in rows]
        self.captions = [self.captions[row] for row in rows]
        self.sizes_cm = self.sizes_cm[rows]

    def cloud(self, index: int) -> Cloud:
        return super().cloud(index)._replace(point_labels=self._part[index])


class FurniturePartsDataModule(PointCloudDataModule):
    """Batches of embedded models with the parts of their points."""

    splits = {name: [name] for name in ("train", "test")}
    published_sizes = {"train": 74, "test": 34}

    def __init__(
        self, root: str | Path | None = None, *, split: Split = "train", **loading: Any
    ) -> None:
        super().__init__(root or asset_path(ARCHIVE_NAME).parent, split=split, **loading)

    def read_part(self, part: str) -> FurnitureParts:
        return FurnitureParts(part, root=self.root)
