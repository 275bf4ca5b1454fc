"""Objaverse-LVIS and the OpenShape ensemble: one .npy file of 10,000 colored points each [1].

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
from recon.data.io.file_checks import COPY_AGAIN_HINT, RESTORE_HINT, check_cloud, resolve_inside
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


def _read_entries(path: Path) -> list[dict[str, Any]]:
    """Read a split: a list of entries or paths, or a mapping of ids to categories."""
    table = read_json(path)
    if isinstance(table, dict):
        table = [{"id": name, "category": category} for name, category in table.items()]
    if not isinstance(table, list) or not table:
        raise ValueError(f"{path}: lists no shapes: {RESTORE_HINT}")
    entries = [{"data_path": item} if isinstance(item, str) else item for item in table]
    for entry in entries:
        paths = isinstance(entry, dict) and [entry.get(key) for key in PATH_KEYS if entry.get(key)]
        if not paths or not all(isinstance(value, str) for value in paths):
            raise ValueError(
                f"{path}: has entries with none of {', '.join(PATH_KEYS)} as text: {RESTORE_HINT}"
            )
    return entries


def _candidate_paths(entry: dict[str, Any]) -> Iterator[str]:
    """Yield possible paths of an entry: suffixes of its path, then of dataset, group and id."""
    parts = PurePosixPath(entry.get("data_path") or entry.get("path") or "").parts
    suffixes = ["/".join(parts[start:]) for start in range(len(parts)) if parts[start] != "/"]
    shape_id = entry.get("id") or entry.get("uid")
    folders = [str(entry[key]) for key in ("dataset", "group") if entry.get(key)]
    if shape_id:
        for start in range(len(folders) + 1):
            suffixes.append("/".join((*folders[start:], f"{shape_id}.npy")))
    for suffix in suffixes:
        for base in CLOUD_FOLDERS:
            yield f"{base}/{suffix}" if base else suffix


class OpenShape(PointCloudDataset):
    """Read the shapes of one JSON split; classes are the sorted values of `category`.

    Coordinates are z up. As in the literature, `target_up=y` swaps y and z.
    """

    up = "z"
    mirrored = True

    def __init__(self, root: str | Path, split: str = "lvis") -> None:
        self.root = Path(root)
        folder = LAYOUT.find_root(self.root, f"{split}.json", [SPLIT_FOLDER, "split", "meta_data"])
        self._split_path = folder / f"{split}.json"
        self._entries = _read_entries(self._split_path)
        self.ids = [
            str(e.get("id") or e.get("uid") or PurePosixPath(e.get("data_path") or e["path"]).stem)
            for e in self._entries
        ]
        check_printable(self.ids, self._split_path)
        categories = [entry.get("category") for entry in self._entries]
        if any(category is not None for category in categories):
            self.classes = sorted({str(c) for c in categories if c is not None})
            check_printable(self.classes, self._split_path)
            class_indices = {name: index for index, name in enumerate(self.classes)}
            labels = [-1 if c is None else class_indices[str(c)] for c in categories]
            self.labels = np.array(labels, dtype=np.int64)
        self._candidate_index = self._find_candidate(0)

    def _find_candidate(self, index: int) -> int:
        """Return the index of the candidate path that exists, 0 if none does."""
        for number, path in enumerate(_candidate_paths(self._entries[index])):
            if resolve_inside(self.root, path, self._split_path).is_file():
                return number
        return 0

    def _cloud_path(self, index: int) -> Path:
        names = _candidate_paths(self._entries[index])
        paths = [resolve_inside(self.root, name, self._split_path) for name in names]
        path = paths[self._candidate_index] if self._candidate_index < len(paths) else paths[0]
        return path if path.is_file() else paths[self._find_candidate(index)]

    def file_paths(self, index: int) -> list[Path]:
        return [self._cloud_path(index)]

    def _read_file(self, index: int) -> Any:
        path = LAYOUT.require(self._cloud_path(index), self.root)
        return read_npy(path), str(path)

    def cloud(self, index: int) -> Cloud:
        content, source = self._read_file(index)
        if not isinstance(content, dict):
            points = check_cloud(content, source)
            return Cloud(points, colors=_check_colors(content[:, 3:6], len(points), source))
        if "xyz" not in content:
            raise ValueError(
                f"{source}: has no `xyz`, only {sorted(map(str, content))}: {COPY_AGAIN_HINT}"
            )
        points = check_cloud(content["xyz"], source)
        return Cloud(points, colors=_check_colors(content.get("rgb"), len(points), source))

    def texts(self, index: int) -> Sequence[str]:
        content, source = self._read_file(index)
        texts: list[str] = []
        for key in TEXT_KEYS if isinstance(content, dict) else ():
            value = content.get(key)
            values = value if isinstance(value, list | tuple) else [value]
            texts += [text for text in values if isinstance(text, str)]
        if not texts and (class_name := self._class_name(index)):
            texts = build_prompts(class_name)
        if not texts:
            raise ValueError(
                f"{source}: has no text, and {self._split_path} has no category for it: add one of "
                "them, or train without teachers (student=generative)"
            )
        return texts

    def _class_name(self, index: int) -> str:
        row = self.labels[index] if len(self.labels) else -1
        return self.classes[row].replace("_", " ") if row >= 0 else ""

    def category(self, index: int) -> int:
        if not len(self.labels) or self.labels[index] < 0:
            raise ValueError(f"{self._split_path}: has no category for {self.ids[index]}")
        return int(self.labels[index])


def _check_colors(rgb: Any, count: int, source: str) -> np.ndarray | None:
    """Return RGB colors as float32 fractions or uint8; raise ValueError for invalid colors."""
    if rgb is None or (isinstance(rgb, np.ndarray) and not rgb.size):
        return None
    if not isinstance(rgb, np.ndarray):
        raise ValueError(
            f"{source}: its colors are a {type(rgb).__name__}, not an array: {COPY_AGAIN_HINT}"
        )
    colors = rgb
    if colors.shape != (count, 3) or colors.dtype.kind not in "iuf":
        raise ValueError(
            f"{source}: its colors have shape {colors.shape} for {count} points: {COPY_AGAIN_HINT}"
        )
    if colors.dtype == np.uint8:
        return colors
    check_cloud(colors, f"{source} (colors)")
    low, high = float(colors.min()), float(colors.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"{source}: its colors are in [{low:g}, {high:g}], not in [0, 1] or [0, 255]: "
            f"{COPY_AGAIN_HINT}"
        )
    return colors.astype(np.float32) if high <= 1 else colors.round().astype(np.uint8)


class ObjaverseLVISDataModule(PointCloudDataModule):
    """Provide batches of Objaverse-LVIS, or of the training set of OpenShape (`split=train`)."""

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
