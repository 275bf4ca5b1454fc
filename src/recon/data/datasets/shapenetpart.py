"""ShapeNetPart: 16,881 shapes of 16 classes, with point labels of 50 parts, y up [1].

[1] Yi et al., A Scalable Active Framework for Region Annotation, SIGGRAPH Asia 2016.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.modelnet import cloud_from_table
from recon.data.io.arrays import read_json, read_lines
from recon.data.io.file_checks import (
    COPY_AGAIN_HINT,
    RESTORE_HINT,
    check_labels,
    resolve_inside,
    wrap_read_errors,
)
from recon.data.io.text_table import read_table
from recon.utils.deprecation import renamed_arguments
from recon.utils.printable import check_printable

FOLDER = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
LAYOUT = ExpectedLayout(
    "ShapeNetPart",
    """\
{root}/
  synsetoffset2category.txt                                lines <class> <synset>
  train_test_split/shuffled_{{train,val,test}}_file_list.json   shape_data/<synset>/<id>
  <synset>/<id>.txt                                        lines x y z nx ny nz part""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)
CLASS_TO_PARTS = {
    "Airplane": range(4), "Bag": range(4, 6), "Cap": range(6, 8), "Car": range(8, 12),
    "Chair": range(12, 16), "Earphone": range(16, 19), "Guitar": range(19, 22),
    "Knife": range(22, 24), "Lamp": range(24, 28), "Laptop": range(28, 30),
    "Motorbike": range(30, 36), "Mug": range(36, 38), "Pistol": range(38, 41),
    "Rocket": range(41, 44), "Skateboard": range(44, 47), "Table": range(47, 50),
}  # fmt: skip
POINT_CLASSES = tuple(f"{name} {part}" for name, parts in CLASS_TO_PARTS.items() for part in parts)


class ShapeNetPart(PointCloudDataset):
    """Read one split, train, val or test: clouds of about 2,500 points with normals and parts."""

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = LAYOUT.find_root(Path(root), "synsetoffset2category.txt", [FOLDER])
        self._read_classes(self.root / "synsetoffset2category.txt")
        split_path = self.root / "train_test_split" / f"shuffled_{split}_file_list.json"
        entries = read_json(LAYOUT.require(split_path, self.root))
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ValueError(f"{split_path}: not a list of names: {RESTORE_HINT}")
        check_printable(entries, split_path)
        ids, labels = [], []
        for entry in entries:
            synset, _, name = entry.removeprefix("shape_data/").partition("/")
            if synset not in self._synsets:
                raise ValueError(
                    f"{split_path}: {entry!r} belongs to none of the {len(self._synsets)} classes: "
                    "correct or remove this entry"
                )
            resolve_inside(self.root, f"{synset}/{name}.txt", split_path)
            ids.append(f"{synset}/{name}")
            labels.append(self._synsets[synset])
        self.ids, self.labels = ids, np.array(labels, dtype=np.int64)

    def _read_classes(self, path: Path) -> None:
        rows = [line.split() for line in read_lines(path)]
        with wrap_read_errors(path, "list of classes and synsets"):
            self._synsets = {synset: index for index, (_, synset) in enumerate(rows)}
        self.classes = [name for name, _ in rows]
        if unknown := set(self.classes) - CLASS_TO_PARTS.keys():
            raise ValueError(
                f"{path}: {sorted(unknown)} are not classes of ShapeNetPart: {RESTORE_HINT}"
            )
        self.parts = {name: list(CLASS_TO_PARTS[name]) for name in self.classes}
        self.point_classes = POINT_CLASSES

    def file_paths(self, index: int) -> list[Path]:
        return [self.root / f"{self.ids[index]}.txt"]

    def cloud(self, index: int) -> Cloud:
        path = LAYOUT.require(self.root / f"{self.ids[index]}.txt", self.root)
        table = read_table(path, columns=(4, 7))
        class_parts = self.parts[self.classes[self.labels[index]]]
        parts = check_labels(table[:, -1], len(table), len(POINT_CLASSES), str(path))
        if unexpected := Counter(parts[~np.isin(parts, class_parts)].tolist()):
            raise ValueError(
                f"{path}: {unexpected.total()} points have the parts {sorted(unexpected)}, but the "
                f"class {self.classes[self.labels[index]]} has {class_parts}: {COPY_AGAIN_HINT}"
            )
        return cloud_from_table(table[:, :-1], str(path))._replace(point_labels=parts)


class ShapeNetPartDataModule(PointCloudDataModule):
    """Provide batches of ShapeNetPart, 2,048 points per shape, by default of train and val."""

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
        num_points: int | None = 2048,
        **loading: Any,
    ) -> None:
        super().__init__(root, split=split, test_split=test_split, num_points=num_points, **loading)

    def read_part(self, part: str) -> ShapeNetPart:
        return ShapeNetPart(self.root, part)
