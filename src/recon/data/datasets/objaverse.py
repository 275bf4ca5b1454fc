"""Objaverse-LVIS and OpenShape's ensemble: one .npy file a shape, 10,000 coloured points, z up [1].

[1] Deitke et al., arXiv:2212.08051; processed by Liu et al., arXiv:2305.10764 (OpenShape).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.arrays import read_json, read_npy
from recon.data.io.file_checks import COPY_AGAIN_HINT, check_cloud, resolve_inside
from recon.teachers.prompts import build_prompts
from recon.utils.printable import check_printable

SPLIT_FOLDER = "meta_data/split"
CLOUD_FOLDERS = ("", "objaverse-processed/merged_for_training_final", "merged_for_training_final")
PATH_KEYS = ("data_path", "path", "id", "uid")
TEXT_KEYS = ("text", "blip_caption", "msft_caption", "retrieval_text")
LAYOUT = ExpectedLayout(
    "Objaverse as OpenShape processed it",
    """\
{root}/
  meta_data/split/lvis.json, train_all.json    lists of data_path, or of dataset, group and id
  objaverse-processed/merged_for_training_final/<dataset>/<group>/<id>.npy
                                               dictionaries with xyz and rgb, (10000, 3) each""",
    "https://huggingface.co/datasets/OpenShape/openshape-training-data",
)


def _entries(path: Path) -> list[dict[str, Any]]:
    """Read a split: a list of entries or paths, or a table id -> category."""
    table = read_json(path)
    if isinstance(table, dict):
        table = [{"id": name, "category": category} for name, category in table.items()]
    if not isinstance(table, list) or not table:
        raise ValueError(f"{path}: lists no shapes: {COPY_AGAIN_HINT}")
    entries = [{"data_path": e} if isinstance(e, str) else e for e in table]
    for entry in entries:
        known = isinstance(entry, dict) and [entry.get(key) for key in PATH_KEYS if entry.get(key)]
        if not known or not all(isinstance(value, str) for value in known):
            raise ValueError(
                f"{path}: has entries with none of {', '.join(PATH_KEYS)}: {COPY_AGAIN_HINT}"
            )
    return entries


def _places(entry: dict[str, Any]) -> Iterator[str]:
    """List where an entry's file may lie: tails of its own path, then dataset, group and id."""
    parts = PurePosixPath(entry.get("data_path") or entry.get("path") or "").parts
    tails = ["/".join(parts[start:]) for start in range(len(parts)) if parts[start] != "/"]
    ident = entry.get("id") or entry.get("uid")
    folders = [str(entry[key]) for key in ("dataset", "group") if entry.get(key)]
    if ident:
        tails += ["/".join((*folders[start:], f"{ident}.npy")) for start in range(len(folders) + 1)]
    for tail in tails:
        for base in CLOUD_FOLDERS:
            yield f"{base}/{tail}" if base else tail


class OpenShape(PointCloudDataset):
    """The shapes that one JSON split lists; classes are those of its `category` fields, sorted.

    Coordinates are z up. The literature swaps y and z; so does `up: y` here.
    """

    up = "z"
    mirrored = True

    def __init__(self, root: str | Path, split: str = "lvis") -> None:
        self.root = Path(root)
        folder = LAYOUT.find_root(self.root, f"{split}.json", [SPLIT_FOLDER, "split", "meta_data"])
        self._list = folder / f"{split}.json"
        self._files = _entries(self._list)
        self.ids = [
            str(e.get("id") or e.get("uid") or PurePosixPath(e.get("data_path") or e["path"]).stem)
            for e in self._files
        ]
        check_printable(self.ids, self._list)
        categories = [entry.get("category") for entry in self._files]
        if any(category is not None for category in categories):
            self.classes = sorted({str(c) for c in categories if c is not None})
            check_printable(self.classes, self._list)
            number = {name: row for row, name in enumerate(self.classes)}
            numbers = [-1 if c is None else number[str(c)] for c in categories]
            self.labels = np.array(numbers, dtype=np.int64)
        self._rule = self._found(0)

    def _found(self, index: int) -> int:
        """Return which of an entry's possible places holds its file, the first where none does."""
        for rule, place in enumerate(_places(self._files[index])):
            if resolve_inside(self.root, place, self._list).is_file():
                return rule
        return 0

    def _path(self, index: int) -> Path:
        places = [resolve_inside(self.root, p, self._list) for p in _places(self._files[index])]
        path = places[self._rule] if self._rule < len(places) else places[0]
        return path if path.is_file() else places[self._found(index)]

    def file_paths(self, index: int) -> list[Path]:
        return [self._path(index)]

    def _read(self, index: int) -> Any:
        path = LAYOUT.require(self._path(index), self.root)
        return read_npy(path), str(path)

    def cloud(self, index: int) -> Cloud:
        held, source = self._read(index)
        if not isinstance(held, dict):
            points = check_cloud(held, source)
            return Cloud(points, colors=_colors(held[:, 3:6], len(points), source))
        if "xyz" not in held:
            raise ValueError(
                f"{source}: has no `xyz`, but {sorted(map(str, held))}: {COPY_AGAIN_HINT}"
            )
        points = check_cloud(held["xyz"], source)
        return Cloud(points, colors=_colors(held.get("rgb"), len(points), source))

    def texts(self, index: int) -> Sequence[str]:
        held, source = self._read(index)
        found: list[str] = []
        for key in TEXT_KEYS if isinstance(held, dict) else ():
            value = held.get(key)
            listed = value if isinstance(value, list | tuple) else [value]
            found += [text for text in listed if isinstance(text, str)]
        if not found and (label := self._class_of(index)):
            found = build_prompts(label)
        if not found:
            raise ValueError(f"{source}: has no text, and {self._list} no category for it")
        return found

    def _class_of(self, index: int) -> str:
        row = self.labels[index] if len(self.labels) else -1
        return self.classes[row].replace("_", " ") if row >= 0 else ""

    def category(self, index: int) -> int:
        if not len(self.labels) or self.labels[index] < 0:
            raise ValueError(f"{self._list}: has no category for {self.ids[index]}")
        return int(self.labels[index])


def _colors(rgb: Any, count: int, source: str) -> np.ndarray | None:
    """Return RGB as fractions, as stored, or as bytes; raise ValueError that names bad ones."""
    if rgb is None or (isinstance(rgb, np.ndarray) and not rgb.size):
        return None
    if not isinstance(rgb, np.ndarray):
        raise ValueError(
            f"{source}: its colours are a {type(rgb).__name__}, no array: {COPY_AGAIN_HINT}"
        )
    colors = rgb
    if colors.shape != (count, 3) or colors.dtype.kind not in "iuf":
        raise ValueError(
            f"{source}: its colours have shape {colors.shape} for {count} points: {COPY_AGAIN_HINT}"
        )
    if colors.dtype == np.uint8:
        return colors
    check_cloud(colors, f"{source} (colours)")
    low, high = float(colors.min()), float(colors.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"{source}: its colours lie in [{low:g}, {high:g}], not in [0, 1]: {COPY_AGAIN_HINT}"
        )
    return colors.astype(np.float32) if high <= 1 else colors.round().astype(np.uint8)


class ObjaverseLVISDataModule(PointCloudDataModule):
    """Batches of Objaverse-LVIS, and of what OpenShape trains on (`split=train`)."""

    splits = {
        "lvis": ["lvis"], "train": ["train_all"], "train_no_lvis": ["train_no_lvis"],
        "test": ["lvis"],
    }  # fmt: skip
    published_sizes = {"lvis": 46_205, "train_all": 875_665}

    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "lvis",
        test_split: Split | None = "lvis",
        target_up: str | None = "y",
        **loading: Any,
    ) -> None:
        super().__init__(root, split=split, test_split=test_split, target_up=target_up, **loading)

    def read_part(self, part: str) -> OpenShape:
        return OpenShape(self.root, part)
