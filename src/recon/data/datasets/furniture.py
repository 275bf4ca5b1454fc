"""Bundled data set: 820 real 3D models of furniture and household objects.

See docs/furniture.md for its creation, splits, licenses and attribution.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.io.arrays import read_npz
from recon.data.io.file_checks import check_cloud, wrap_read_errors

SPLITS = ("train", "test", "unlabelled", "unused")
ARCHIVE_NAME = "furniture.npz"
REINSTALL_HINT = "reinstall the package, or leave data.root unset"


def asset_path(name: str) -> Path:
    """Return the path of a file of the bundled data set."""
    return Path(str(files("recon") / "assets" / "furniture" / name))


@lru_cache(maxsize=2)
def read_archive(path: Path) -> dict[str, np.ndarray]:
    """Read an archive of the data set; raise FileNotFoundError or ValueError with its name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found: {REINSTALL_HINT}")
    try:
        return read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path}: corrupt ({error}): {REINSTALL_HINT}") from error


class Furniture(PointCloudDataset):
    """Read clouds of 2,048 points, y up, front +z, with colors, icons, captions and 26 classes.

    `splits` selects among train (269 shapes), test (141) and unlabelled (404, without classes).
    Each family of near-duplicates is in one split only. Only evaluation uses the labels.
    `root` is a folder with a furniture.npz to read instead of the bundled one.
    """

    def __init__(
        self,
        splits: Sequence[str] = ("train", "unlabelled"),
        *,
        root: str | Path | None = None,
    ) -> None:
        if unknown := set(splits) - set(SPLITS[:3]):
            raise ValueError(f"no split {sorted(unknown)}: choose among {', '.join(SPLITS[:3])}")
        self.path = Path(root) / ARCHIVE_NAME if root else asset_path(ARCHIVE_NAME)
        archive = read_archive(self.path)
        with wrap_read_errors(self.path, "table of models"):
            self._select_splits(archive, splits)

    def _select_splits(self, archive: dict[str, np.ndarray], splits: Sequence[str]) -> None:
        self.rows = np.flatnonzero(np.isin(archive["split"], [SPLITS.index(s) for s in splits]))
        self._archive = archive
        self.ids = archive["model_id"][self.rows].tolist()
        self.classes = archive["class_names"].tolist()
        self.names: list[str] = archive["names"][self.rows].tolist()
        self.captions: list[str] = archive["captions"][self.rows].tolist()
        self.labels = archive["label"][self.rows].astype(int)
        self.families = archive["group"][self.rows].astype(int)
        self.sizes_cm = archive["dims_cm"][self.rows]
        """Width, height and depth of each model, in cm."""
        for name in ("points", "colors", "icons"):
            if len(archive[name]) != len(archive["split"]):
                raise ValueError(
                    f"it has {len(archive[name])} `{name}` for {len(archive['split'])} models"
                )
        if not all(isinstance(name, str) for name in (*self.ids, *self.classes, *self.captions)):
            raise ValueError("its names are not text")

    def cloud(self, index: int) -> Cloud:
        row = self.rows[index]
        points = check_cloud(self._archive["points"][row], f"{self.path} ({self.ids[index]})")
        return Cloud(points, colors=self._archive["colors"][row])

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._archive["icons"][self.rows[index]])

    def texts(self, index: int) -> Sequence[str]:
        return [self.captions[index]]

    def category(self, index: int) -> int:
        return self.names.index(self.names[index])


class FurnitureDataModule(PointCloudDataModule):
    """Provide batches of the bundled data set, by default of train and unlabelled shapes."""

    splits = {name: [name] for name in ("pretrain", *SPLITS[:3])}
    published_sizes = {"pretrain": 673, "train": 269, "test": 141, "unlabelled": 404}

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: Split = "pretrain",
        **loading: Any,
    ) -> None:
        super().__init__(root or asset_path(ARCHIVE_NAME).parent, split=split, **loading)

    def read_part(self, part: str) -> Furniture:
        return Furniture(("train", "unlabelled") if part == "pretrain" else [part], root=self.root)
