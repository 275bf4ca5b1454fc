"""ShapeNet-55: 52,470 clouds of 8,192 points, each with a rendering and a category [1].

[1] Chang et al., arXiv:1512.03012; split of Yu et al., arXiv:2111.14819 (Point-BERT).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.arrays import read_json, read_lines, read_npy
from recon.data.io.file_checks import (
    RESTORE_HINT,
    check_cloud,
    check_file,
    resolve_inside,
    wrap_read_errors,
)
from recon.data.io.image_checks import decode_image
from recon.teachers.prompts import build_prompts
from recon.utils.printable import check_printable

SPLITS = {"train": ["train"], "test": ["test"], "all": ["test", "train"]}
LAYOUT = ExpectedLayout(
    "ShapeNet-55",
    """\
{root}/
  ShapeNet-55/train.txt, ShapeNet-55/test.txt   lines <synset>-<id>.npy
  shapenet55.json                               columns catalogue, describe
  shapenet_pc/<synset>-<id>.npy                 (8192, 3) points
  shapenet_img/<synset>-<id>.png                renderings, for live image teachers only""",
    "https://github.com/qizekun/ReCon/blob/main/DATASET.md",
)


def _read_categories(path: Path) -> dict[str, tuple[int, str]]:
    """Read a table, stored by columns or rows, as a mapping of synset to (row, category name)."""
    table = read_json(path)
    with wrap_read_errors(path, "table with the columns catalogue and describe"):
        rows = table
        if isinstance(table, dict):
            rows = [
                {"catalogue": table["catalogue"][key], "describe": table["describe"][key]}
                for key in table["catalogue"]
            ]
        # The table stores the synset as a number, without its leading zero.
        if any(not isinstance(row["describe"], str) for row in rows):
            raise ValueError("it has a category without a name")
        categories = {
            f"{int(row['catalogue']):08d}": (index, row["describe"])
            for index, row in enumerate(rows)
        }
        if len(categories) < len(rows):
            raise ValueError("it has two rows for one category")
        return categories


class ShapeNet(PointCloudDataset):
    """Read ShapeNet-55; `split` is train, test, or all (test followed by train).

    Raises FileNotFoundError with the expected directory tree for a missing file, and ValueError
    with the name of a corrupt file.
    """

    def __init__(self, root: str | Path, split: str = "all") -> None:
        if split not in SPLITS:
            raise ValueError(f"ShapeNet-55 has no split {split!r}: choose train, test or all")
        self.root = LAYOUT.find_root(Path(root), "shapenet55.json", ["ShapeNet55-34"])
        table = LAYOUT.require(self.root / "shapenet55.json", self.root)
        self.categories = _read_categories(table)
        self.classes = [name for _, name in self.categories.values()]
        check_printable(self.classes, table)
        split_paths = [self.root / "ShapeNet-55" / f"{part}.txt" for part in SPLITS[split]]
        self.ids = []
        for path in split_paths:
            for line in read_lines(LAYOUT.require(path, self.root)):
                resolve_inside(self.root / "shapenet_pc", line, path)
                self.ids.append(line.removesuffix(".npy"))
        if unknown := {i.split("-")[0] for i in self.ids} - self.categories.keys():
            raise ValueError(f"{table}: has no category for {sorted(unknown)}: {RESTORE_HINT}")
        self.labels = np.array([self.category(index) for index in range(len(self.ids))], np.int64)

    def cloud(self, index: int) -> Cloud:
        path = LAYOUT.require(self.root / "shapenet_pc" / f"{self.ids[index]}.npy", self.root)
        return Cloud(check_cloud(read_npy(path), str(path)))

    def file_paths(self, index: int) -> Sequence[Path]:
        name = self.ids[index]
        folders = (("shapenet_pc", "npy"), ("shapenet_img", "png"))
        return [self.root / folder / f"{name}.{suffix}" for folder, suffix in folders]

    def image_bytes(self, index: int) -> bytes | None:
        if not (folder := self.root / "shapenet_img").is_dir():
            return None
        return check_file(LAYOUT.require(folder / f"{self.ids[index]}.png", self.root)).read_bytes()

    def image(self, index: int) -> Image.Image:
        path = LAYOUT.require(self.root / "shapenet_img" / f"{self.ids[index]}.png", self.root)
        return decode_image(check_file(path).read_bytes(), path)

    def file_warnings(self) -> list[str]:
        clouds = {path.stem for path in (self.root / "shapenet_pc").glob("*.npy")}
        images = sorted((self.root / "shapenet_img").glob("*.png"))
        return [f"{path}: an image without a cloud" for path in images if path.stem not in clouds]

    def texts(self, index: int) -> Sequence[str]:
        return build_prompts(self.classes[self.category(index)])

    def category(self, index: int) -> int:
        return self.categories[self.ids[index].split("-")[0]][0]


class ShapeNetDataModule(PointCloudDataModule):
    """Provide batches of ShapeNet-55 for pretraining, by default train and test as in the paper."""

    splits = SPLITS
    published_sizes = {"train": 41_952, "test": 10_518}

    def __init__(self, root: str | Path, *, split: Split = "all", **loading: Any) -> None:
        super().__init__(root, split=split, **loading)

    def read_part(self, part: str) -> ShapeNet:
        return ShapeNet(self.root, part)
