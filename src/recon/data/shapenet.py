"""ShapeNet-55: 52,470 clouds of 8,192 points, a rendering and a category name each [1].

[1] Chang et al., arXiv:1512.03012; split of Yu et al., arXiv:2111.14819 (Point-BERT).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import PointCloudDataset, check_cloud
from recon.teachers.prompts import prompts

TREE = """\
{root}/
  ShapeNet-55/train.txt, ShapeNet-55/test.txt   lines <synset>-<id>.npy
  shapenet55.json                               columns catalogue, describe
  shapenet_pc/<synset>-<id>.npy                 (8192, 3) points
  shapenet_img/<synset>-<id>.png                renderings, for live image teachers only"""
SOURCE = "https://github.com/qizekun/ReCon/blob/main/DATASET.md"


def _need(path: Path, root: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: not found. ShapeNet-55 is expected as\n{TREE.format(root=root)}\n"
            f"Get it as {SOURCE} says, then set data.root=<folder>"
        )
    return path


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a list of names ({error}): copy the file again") from error


def _categories(path: Path) -> dict[str, tuple[int, str]]:
    """Read synset -> (row, category name) from a table stored by columns or by rows."""
    try:
        table = json.loads(path.read_text())
        rows = table
        if isinstance(table, dict):
            rows = [
                {"catalogue": table["catalogue"][key], "describe": table["describe"][key]}
                for key in table["catalogue"]
            ]
        # The synset is kept as a number, without its leading zero.
        return {
            f"{int(row['catalogue']):08d}": (index, str(row["describe"]))
            for index, row in enumerate(rows)
        }
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a table with the columns catalogue and describe ({error!r}): "
            "copy the file again"
        ) from error


class ShapeNet(PointCloudDataset):
    """ShapeNet-55 as it lies on disk; `split` is train, test, or all (train and test together).

    Raises FileNotFoundError that shows the expected tree where a file is missing, and ValueError
    that names a corrupt one.
    """

    def __init__(self, root: str | Path, split: str = "all") -> None:
        lists = {"train": ["train"], "test": ["test"], "all": ["test", "train"]}
        if split not in lists:
            raise ValueError(f"ShapeNet-55 has no split {split!r}: choose train, test or all")
        self.root = Path(root)
        self.categories = _categories(_need(self.root / "shapenet55.json", self.root))
        self.ids = [
            line.strip().removesuffix(".npy")
            for name in lists[split]
            for line in _lines(_need(self.root / "ShapeNet-55" / f"{name}.txt", self.root))
            if line.strip()
        ]
        unknown = {i.split("-")[0] for i in self.ids} - self.categories.keys()
        if unknown:
            raise ValueError(
                f"{self.root / 'shapenet55.json'}: has no category for {sorted(unknown)}"
            )

    def points(self, index: int) -> Float[np.ndarray, "n 3"]:
        path = _need(self.root / "shapenet_pc" / f"{self.ids[index]}.npy", self.root)
        try:
            points = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable array ({error}): copy it again") from error
        return check_cloud(points, str(path))

    def image(self, index: int) -> Image.Image:
        path = _need(self.root / "shapenet_img" / f"{self.ids[index]}.png", self.root)
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{path}: not a readable picture ({error}): copy it again") from error

    def _category(self, index: int) -> tuple[int, str]:
        return self.categories[self.ids[index].split("-")[0]]

    def texts(self, index: int) -> Sequence[str]:
        return prompts(self._category(index)[1])

    def category(self, index: int) -> int:
        return self._category(index)[0]


class ShapeNetDataModule(PointCloudDataModule):
    """Batches of ShapeNet-55 for pretraining: train and test lists together, as the paper does."""

    def __init__(self, root: str | Path, *, split: str = "all", **loading: Any) -> None:
        super().__init__(**loading)
        self.root, self.split = root, split

    def train_dataset(self) -> ShapeNet:
        return ShapeNet(self.root, self.split)
