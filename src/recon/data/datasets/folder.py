"""Custom data sets: a folder of shape files with a subfolder per class, or a table of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset, concat_datasets
from recon.data.datasets.shape_listing import SPLITS, list_shapes
from recon.data.datasets.shape_reader import ShapeReader
from recon.data.io.file_checks import check_file
from recon.data.io.image_checks import decode_image
from recon.data.io.points.table import DEFAULT_OPTIONS, ReadOptions
from recon.data.prepared.layout import prepared_splits
from recon.data.render import render_cloud
from recon.teachers.prompts import build_prompts
from recon.utils.deprecation import renamed_arguments
from recon.utils.printable import check_printable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ShapeFolder(PointCloudDataset):
    """Read shapes from a folder, or from a .csv or .parquet table with paths relative to it.

    Classes are the names of the first subfolders or the labels of the table, sorted, or in the
    order of `classes`. The other arguments are those of `ShapeReader`. Images are taken from the
    table, or from files with the shape's name in the same folder, or rendered from the cloud.
    Sentences are the captions, or the class name in the prompts of the paper. `split` selects the
    shapes of one split, by folder or by the column `split`; `all` selects all shapes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        num_surface_points: int = 8192,
        up: str = "auto",
        classes: Sequence[str] | None = None,
        options: ReadOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.root = Path(root)
        self.reader = ShapeReader(num_surface_points, up, options).check()
        self.up = self.reader.cloud_up
        entries = list_shapes(self.root)
        # If some shapes have a split, the others are for training; `all` is ordered by split.
        if any(entry.split for entry in entries):
            entries = [entry._replace(split=entry.split or "train") for entry in entries]
            entries.sort(key=lambda entry: SPLITS.index(entry.split or ""))
        self.split_names = [name for name in SPLITS if any(e.split == name for e in entries)]
        self.entries = [e for e in entries if split == "all" or e.split == split]
        if not self.entries:
            choices = ", ".join([*self.split_names, "all"])
            raise ValueError(f"{self.root}: has no shapes of split {split!r}: choose {choices}")
        self.ids = [entry.name for entry in self.entries]
        check_printable(self.ids, self.root)
        if duplicates := [name for name, count in Counter(self.ids).items() if count > 1]:
            raise ValueError(
                f"{self.root}: lists {duplicates[0]!r} more than once: remove the other rows"
            )
        self._assign_labels({entry.label for entry in entries} - {None}, classes)

    def _assign_labels(self, names: set[str | None], classes: Sequence[str] | None) -> None:
        labels = sorted(str(name) for name in names)
        check_printable(labels, self.root)
        self.classes = labels if classes is None else list(classes)
        if unknown := [name for name in labels if name not in self.classes]:
            raise ValueError(
                f"{self.root}: {unknown} are not among the classes {self.classes}: add them to "
                "data.classes, or leave it unset"
            )
        if self.classes:
            index = {name: row for row, name in enumerate(self.classes)}
            self.labels = np.array([index.get(e.label or "", -1) for e in self.entries], np.int64)

    def cloud(self, index: int) -> Cloud:
        return self.reader.read(self.entries[index].path)

    def file_paths(self, index: int) -> list[Path]:
        image = self._image_path(index)
        return [self.entries[index].path, *([image] if image else [])]

    def _image_path(self, index: int) -> Path | None:
        entry = self.entries[index]
        if entry.image is not None:
            return entry.image
        candidates = (entry.path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)
        return next((path for path in candidates if path.is_file()), None)

    def image_bytes(self, index: int) -> bytes | None:
        path = self._image_path(index)
        return super().image_bytes(index) if path is None else check_file(path).read_bytes()

    def image(self, index: int) -> Image.Image:
        path = self._image_path(index)
        if path is None:
            return render_cloud(self.cloud(index), up=self.up)
        return decode_image(check_file(path).read_bytes(), path)

    def texts(self, index: int) -> Sequence[str]:
        entry = self.entries[index]
        if entry.caption is not None:
            return [entry.caption]
        if entry.label is not None:
            return build_prompts(entry.label.replace("_", " "))
        raise ValueError(
            f"{entry.path}: has no caption and no class: sort shapes into one folder per class, "
            "list captions in a table, or train without teachers (student=generative)"
        )

    def category(self, index: int) -> int:
        if not len(self.labels) or self.labels[index] < 0:
            raise ValueError(
                f"{self.entries[index].path}: has no class: move it into a class folder"
            )
        return int(self.labels[index])


class FolderDataModule(PointCloudDataModule):
    """Provide batches of custom shapes.

    `num_points` points are drawn from each cloud. `num_surface_points` and `up` are options of
    `ShapeReader`; `columns`, `on_nan`, `topic` and `frame` those of `ReadOptions`.
    """

    splits = {name: [name] for name in ("all", *SPLITS)}

    @renamed_arguments(size="num_points", count="num_surface_points")
    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "all",
        num_points: int | None = 8192,
        num_surface_points: int = 8192,
        up: str = "auto",
        target_up: str | None = "y",
        classes: Sequence[str] | None = None,
        columns: Sequence[str] | str | None = None,
        on_nan: str = "drop",
        topic: str | None = None,
        frame: int = 0,
        **loading: Any,
    ) -> None:
        super().__init__(root, split=split, num_points=num_points, target_up=target_up, **loading)
        options = {"columns": columns, "on_nan": on_nan, "topic": topic, "frame": frame}
        self.reader = ShapeReader.from_options(
            {"num_surface_points": num_surface_points, "up": up, **options}
        )
        self.classes = classes

    def settings(self) -> dict[str, Any]:
        classes = None if self.classes is None else list(self.classes)
        return {**self.reader.settings(), "classes": classes}

    def read_part(self, part: str) -> ShapeFolder:
        return ShapeFolder(self.root, part, classes=self.classes, **self.reader._asdict())

    def stored_parts(self) -> list[str]:
        return prepared_splits(self.root) or self.read_part("all").split_names or ["all"]

    def open_part(self, part: str) -> PointCloudDataset:
        prepared = prepared_splits(self.root)
        if part == "all" and prepared and part not in prepared:
            return concat_datasets(
                [super(FolderDataModule, self).open_part(name) for name in prepared]
            )
        return super().open_part(part)
