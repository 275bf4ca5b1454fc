"""Your own shapes: a folder of files, classes by sub-folder, or a table that lists them."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset, concat_datasets
from recon.data.io.file_checks import COPY_AGAIN_HINT, check_file, resolve_inside, wrap_read_errors
from recon.data.io.image_checks import decode_image
from recon.data.io.parquet import import_parquet, read_columns
from recon.data.io.shape import READERS, read_shape, walk_folders
from recon.data.prepared.dataset import prepared_splits
from recon.data.render import render_cloud
from recon.data.transforms import axis_index
from recon.teachers.prompts import build_prompts
from recon.utils.deprecation import renamed_arguments
from recon.utils.printable import check_printable

SPLITS = ("train", "val", "test")
TABLE_SUFFIXES = (".csv", ".parquet")
TABLE_COLUMNS = ("path", "label", "caption", "image", "split")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Entry(NamedTuple):
    """One shape, and what is known about it."""

    path: Path
    name: str
    label: str | None = None
    caption: str | None = None
    image: Path | None = None
    split: str | None = None


def _walk(root: Path) -> Iterator[Entry]:
    """Find the shapes below a folder: `<class>/x.ply`, also with train, val, test as a folder."""
    found = [
        (folder / name, (folder / name).relative_to(root))
        for folder, names in walk_folders(root)
        for name in names
        if Path(name).suffix.lower() in READERS
    ]
    level = _split_level([path.parts[:-1] for _, path in found])
    for path, place in found:
        above = list(place.parts[:-1])
        split = above.pop(level) if level is not None and len(above) > level else None
        yield Entry(path, place.as_posix(), above[0] if above else None, split=split)


def _split_level(places: Sequence[tuple[str, ...]]) -> int | None:
    """Tell which of the first two levels of folders are splits: one where all are so named.

    A class may be called `train` as well: then its level has others.
    """
    for level in (0, 1):
        names = {place[level] for place in places if len(place) > level}
        if names and names <= set(SPLITS) and all(len(place) > level for place in places):
            return level
    return None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read a table with the columns path and, of choice, label, caption, image, split."""
    check_file(path)
    if path.suffix.lower() == ".csv":
        with wrap_read_errors(path, "table"), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows: list[dict[str, Any]] = [*reader]
            if len({*(names := reader.fieldnames or ())}) < len(names):
                raise ValueError("two columns have one name")
            if long := next((n for n, row in enumerate(rows, start=2) if None in row), None):
                raise ValueError(f"line {long} has more cells than the first: quote commas")
    else:
        parquet = import_parquet()
        with wrap_read_errors(path, "Parquet table"):
            if (count := parquet.read_metadata(path).num_rows) > path.stat().st_size:
                raise ValueError(f"it announces {count} rows")
            there = parquet.read_schema(path).names
        kept = [name for name in TABLE_COLUMNS if name in there]
        table = read_columns(path, kept) if kept else None
        with wrap_read_errors(path, "Parquet table"):
            rows = table.to_pylist() if table is not None else [dict.fromkeys(there)]
    if not rows:
        raise ValueError(f"{path}: lists no shapes: {COPY_AGAIN_HINT}")
    if "path" not in rows[0]:
        raise ValueError(f"{path}: has the columns {sorted(map(str, rows[0]))}, `path` is missing")
    return rows


def _listed(table: Path, root: Path) -> Iterator[Entry]:
    """Read the shapes that a table lists, by paths relative to `root`."""
    for number, row in enumerate(_rows(table), start=2):
        told = {key: value for key, value in row.items() if key and value == value}  # NaN is none
        known = {key: str(value).strip() for key, value in told.items() if value not in (None, "")}
        if "path" not in known:
            raise ValueError(f"{table}: line {number} has no path")
        source = f"{table}, line {number}"
        yield Entry(
            resolve_inside(root, known["path"], source),
            Path(known["path"]).as_posix(),
            known.get("label"),
            known.get("caption"),
            resolve_inside(root, known["image"], source) if "image" in known else None,
            _split(known.get("split"), source),
        )


def _split(name: str | None, source: str) -> str | None:
    if name not in (None, *SPLITS):
        raise ValueError(f"{source}: has the split {name!r}, known are {', '.join(SPLITS)}")
    return name


def _find(root: Path) -> list[Entry]:
    """List the shapes of a folder or a table; raise FileNotFoundError or ValueError for none."""
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        return [*_listed(root, root.parent)]
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: not found: data.root is a folder of shapes, or a .csv or .parquet table "
            "with the columns path, label, caption, image"
        )
    if not (entries := [*_walk(root)]):
        raise ValueError(f"{root}: holds no shapes; known are {', '.join(sorted(READERS))}")
    return entries


class ShapeFolder(PointCloudDataset):
    """Shapes in a folder, or those that a .csv or .parquet table lists relative to its own folder.

    Classes are the first folders' names, or the table's labels, sorted, unless `classes` gives
    them in another order. Meshes give `count` points each. Pictures are those of the table, those
    with a shape's name beside it, or drawn from the cloud; sentences are captions, or the class
    in the prompts of the paper. `split` picks the shapes of a folder or a column so named, `all`
    takes every one.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        num_surface_points: int = 8192,
        up: str = "y",
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root, self.num_surface_points, self.up = Path(root), num_surface_points, up
        entries = _find(self.root)
        # Where some have a split, the others are to train on; `all` goes split by split.
        if any(entry.split for entry in entries):
            entries = [entry._replace(split=entry.split or "train") for entry in entries]
            entries.sort(key=lambda entry: SPLITS.index(entry.split or ""))
        self.present = [name for name in SPLITS if any(e.split == name for e in entries)]
        self.entries = [e for e in entries if split == "all" or e.split == split]
        if not self.entries:
            there = ", ".join([*self.present, "all"])
            raise ValueError(f"{self.root}: has no shapes of split {split!r}: choose {there}")
        self.ids = [entry.name for entry in self.entries]
        check_printable(self.ids, self.root)
        if twice := [name for name, count in Counter(self.ids).items() if count > 1]:
            raise ValueError(f"{self.root}: lists {twice[0]!r} more than once: name it once")
        self._classify({entry.label for entry in entries} - {None}, classes)

    def _classify(self, names: set[str | None], classes: Sequence[str] | None) -> None:
        found = sorted(str(name) for name in names)
        check_printable(found, self.root)
        self.classes = found if classes is None else list(classes)
        if unknown := [name for name in found if name not in self.classes]:
            raise ValueError(
                f"{self.root}: {unknown} are none of the classes {self.classes}: add them to "
                "data.classes, or leave it unset"
            )
        if self.classes:
            number = {name: row for row, name in enumerate(self.classes)}
            self.labels = np.array([number.get(e.label or "", -1) for e in self.entries], np.int64)

    def cloud(self, index: int) -> Cloud:
        return read_shape(self.entries[index].path, self.num_surface_points)

    def file_paths(self, index: int) -> list[Path]:
        picture = self._picture(index)
        return [self.entries[index].path, *([picture] if picture else [])]

    def _picture(self, index: int) -> Path | None:
        entry = self.entries[index]
        if entry.image is not None:
            return entry.image
        beside = (entry.path.with_suffix(ending) for ending in IMAGE_SUFFIXES)
        return next((path for path in beside if path.is_file()), None)

    def image_bytes(self, index: int) -> bytes | None:
        path = self._picture(index)
        return super().image_bytes(index) if path is None else check_file(path).read_bytes()

    def image(self, index: int) -> Image.Image:
        path = self._picture(index)
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
            f"{entry.path}: nothing is known to say about it: sort shapes into one folder a class, "
            "list captions in a table, or train without teachers (student=generative)"
        )

    def category(self, index: int) -> int:
        if not len(self.labels) or self.labels[index] < 0:
            raise ValueError(f"{self.entries[index].path}: has no class: sort it into a folder")
        return int(self.labels[index])


class FolderDataModule(PointCloudDataModule):
    """Batches of a user's own shapes.

    `num_points` are drawn from each; `up` is the axis that points upwards in the files.
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
        up: str = "y",
        target_up: str | None = "y",
        classes: Sequence[str] | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(root, split=split, num_points=num_points, target_up=target_up, **loading)
        if num_surface_points < 1:
            raise ValueError(f"num_surface_points must be at least 1, got {num_surface_points}")
        axis_index(up)
        self.num_surface_points, self.up, self.classes = num_surface_points, up, classes

    def settings(self) -> dict[str, Any]:
        classes = None if self.classes is None else list(self.classes)
        return {"num_surface_points": self.num_surface_points, "up": self.up, "classes": classes}

    def read_part(self, part: str) -> ShapeFolder:
        return ShapeFolder(
            self.root,
            part,
            num_surface_points=self.num_surface_points,
            up=self.up,
            classes=self.classes,
        )

    def stored_parts(self) -> list[str]:
        return prepared_splits(self.root) or self.read_part("all").present or ["all"]

    def open_part(self, part: str) -> PointCloudDataset:
        there = prepared_splits(self.root)
        if part == "all" and there and part not in there:
            return concat_datasets(
                [super(FolderDataModule, self).open_part(name) for name in there]
            )
        return super().open_part(part)
