"""The prepared layout: a data set as a few large files, checked once, then memory-mapped.

    <root>/recon.json                 name, settings and splits
    <root>/<split>/index.json         ids, labels, classes, sentences; each file's size and checksum
    <root>/<split>/00000.safetensors  clouds one after the other, offsets, pictures' files

Everything is written beside its place and moved there when it is whole; recon.json comes last.
"""

import hashlib
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from safetensors import safe_open

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.io.arrays import read_json
from recon.data.io.file_checks import check_cloud, check_labels, wrap_read_errors
from recon.data.io.image_checks import decode_image
from recon.data.transforms import axis_index
from recon.utils.printable import check_printable

MANIFEST_NAME = "recon.json"
INDEX_NAME = "index.json"
FORMAT_VERSION = 1
MAX_OPEN_SHARDS = 1024
"""Files that a process keeps mapped."""
POINT_FIELDS = ("points", "normals", "colors", "point_labels")


def shard_name(number: int) -> str:
    """Return the file name of one part of a split."""
    return f"{number:05d}.safetensors"


def checksum(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_prepared(root: Path) -> bool:
    """Tell whether a folder holds the prepared layout; raise ValueError for an unfinished one."""
    if (root / MANIFEST_NAME).is_file():
        return True
    if any(root.glob(f"*/{shard_name(0)}*")):
        raise ValueError(
            f"{root}: its preparation was not finished: run the same `python -m recon.prepare` "
            "command again, it goes on where it stopped"
        )
    return False


def prepared_splits(root: Path) -> list[str]:
    """Return the splits that a folder holds in the prepared layout, in their own order."""
    if not is_prepared(root):
        return []
    there = {path.parent.name for path in root.glob(f"*/{INDEX_NAME}")}
    held = read_json(root / MANIFEST_NAME)
    known = held.get("splits", []) if isinstance(held, dict) else []
    return [name for name in known if name in there] or sorted(there)


class PreparedDataset(PointCloudDataset):
    """One split in the prepared layout: the same samples as the original files give.

    Raises ValueError or FileNotFoundError that names a file that is missing, cut short, or of
    another data set or settings than `expected`.
    """

    def __init__(self, root: Path, split: str, expected: dict[str, Any] | None = None) -> None:
        self.folder = root / split
        path = self.folder / INDEX_NAME
        if not path.is_file():
            there = sorted(found.parent.name for found in root.glob(f"*/{INDEX_NAME}"))
            raise FileNotFoundError(
                f"{path}: not found: the splits prepared here are {', '.join(there) or 'none'}; "
                "`python -m recon.prepare` adds others"
            )
        index = read_json(path)
        with wrap_read_errors(path, "index of a prepared data set"):
            if index["format"] != FORMAT_VERSION:
                raise ValueError(f"has format {index['format']}, known is {FORMAT_VERSION}")
            self._take(index)
        for key, value in (expected or {}).items():
            if (found := self._settings.get(key)) != value:
                raise ValueError(
                    f"{path}: was prepared with {key}={found}, asked for is {key}={value}: "
                    "change the option, or prepare the original again into another folder"
                )
        self._check_files()

    def _take(self, index: dict[str, Any]) -> None:
        counts = [file["clouds"] for file in index["files"]]
        kept = (index["labels"], index["families"], index["categories"], index["sentences"]["rows"])
        if not all(type(number) is int for part in (counts, *kept) for number in part):
            raise ValueError("has classes or counts that are no whole numbers")
        if min(counts, default=0) < 0:
            raise ValueError("has files of less than no clouds")
        self.ids, self.classes = index["ids"], index["classes"]
        self.labels = np.array(index["labels"], dtype=np.int64)
        self.families = np.array(index["families"], dtype=np.int64)
        self.point_classes, self.parts = index["point_classes"], index["parts"]
        self.up, self.mirrored = index["up"], index["mirrored"]
        self._categories: list[int] = index["categories"]
        self._sentences: list[list[str]] = index["sentences"]["lists"]
        self._sentence_rows: list[int] = index["sentences"]["rows"]
        self._names = [file["name"] for file in index["files"]]
        self._ends = list(accumulate(counts))
        self._slices: OrderedDict[int, dict[str, Any]] = OrderedDict()
        count = self._ends[-1] if self._ends else 0
        columns = (self.labels, self.families, self._categories, self._sentence_rows)
        if len(self.ids) != count or any(len(c) not in (0, count) for c in columns):
            raise ValueError(f"lists {len(self.ids)} clouds, its files hold {count}")
        if not all(-1 <= row < len(self._sentences) for row in self._sentence_rows):
            raise ValueError("lists sentences that it does not have")
        names = [self.ids, self.classes, self.point_classes, self._names, *self._sentences]
        listed = all(isinstance(part, list) for part in names)
        if not listed or not all(isinstance(name, str) for part in names for name in part):
            raise ValueError("has names that are no lists of text")
        check_printable((name for part in names[:4] for name in part), "it")
        self._check_numbers()
        if unknown := [name for name in self._names if not re.fullmatch(r"\d+\.safetensors", name)]:
            raise ValueError(f"lists the file {unknown[0]!r}, which no preparation writes")
        self._sizes = {file["name"]: file["bytes"] for file in index["files"]}
        self._checksums = {file["name"]: str(file["sha256"]) for file in index["files"]}
        self._settings = dict(index["settings"])

    def _check_numbers(self) -> None:
        """Raise ValueError for classes that there are not, or an axis that is none."""
        axis_index(self.up)
        if not isinstance(self.mirrored, bool):
            raise ValueError(f"has mirrored={self.mirrored!r}")
        numbers = np.array(self._categories, dtype=np.int64)
        if any(part.ndim != 1 for part in (self.labels, self.families, numbers)):
            raise ValueError("has labels that are no list of numbers")
        parts = [np.array(own, dtype=np.int64) for own in dict(self.parts).values()]
        ranges = [(self.labels, self.classes), (numbers, self.classes or self.ids)]
        for rows, known in [*ranges, *((own, self.point_classes) for own in parts)]:
            if rows.size and not -1 <= rows.min() <= rows.max() < len(known):
                raise ValueError(f"has class {rows.max()} (or {rows.min()}) of {len(known)}")

    def _check_files(self) -> None:
        for name, expected in self._sizes.items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size != expected:
                raise ValueError(
                    f"{path}: has {size} bytes of {expected}: copy it again, or prepare anew"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slices": OrderedDict()}  # each process maps the files itself

    def _place(self, index: int) -> tuple[dict[str, Any], int]:
        """Return the open file of one cloud, and its number in there."""
        number = bisect_right(self._ends, index)
        if number not in self._slices:
            if len(self._slices) >= MAX_OPEN_SHARDS:
                self._slices.popitem(last=False)
            self._slices[number] = self._open(self.folder / self._names[number])
        return self._slices[number], index - (self._ends[number - 1] if number else 0)

    def _open(self, path: Path) -> dict[str, Any]:
        with wrap_read_errors(path, "part of a prepared data set"):
            file = safe_open(path, framework="np")
            there = file.keys()
            slices = {
                name: file.get_slice(name) for name in (*POINT_FIELDS, "images") if name in there
            }
            offsets = {f"{name}_offsets": file.get_tensor(f"{name}_offsets") for name in slices}
            return slices | offsets

    def _range(self, index: int, name: str) -> np.ndarray | None:
        """Return what one cloud has of a field, None where it has none; raise ValueError."""
        file, row = self._place(index)
        if name not in file:
            return None
        try:
            start, end = (int(offset) for offset in file[f"{name}_offsets"][row : row + 2])
            return file[name][start:end] if end > start else None
        except Exception as error:  # damaged files fail in any way
            raise ValueError(
                f"{self.folder}: damaged at {self.ids[index]}: prepare anew"
            ) from error

    def cloud(self, index: int) -> Cloud:
        fields = {name: self._range(index, name) for name in POINT_FIELDS}
        source = f"{self.folder} ({self.ids[index]})"
        fields["points"] = points = check_cloud(fields["points"], source)
        for name in ("normals", "colors"):
            if (found := fields[name]) is not None and found.dtype != np.uint8:
                check_cloud(found, f"{source}, {name}")
        if any(found is not None and len(found) != len(points) for found in fields.values()):
            raise ValueError(f"{source}: its points and what they carry do not fit: prepare anew")
        if (labels := fields["point_labels"]) is not None:
            check_labels(labels + 1, len(points), len(self.point_classes) + 1, source)
            fields["point_labels"] = labels.astype(np.int64)
        return Cloud(**cast(Any, fields))

    def image_bytes(self, index: int) -> bytes | None:
        content = self._range(index, "images")
        return None if content is None else content.tobytes()

    def image(self, index: int) -> Image.Image:
        content = self.image_bytes(index)
        if content is None:
            raise ValueError(f"{self.folder}: was prepared without an image of {self.ids[index]}")
        return decode_image(content, f"{self.folder} ({self.ids[index]})")

    def texts(self, index: int) -> Sequence[str]:
        row = self._sentence_rows[index] if self._sentence_rows else -1
        if row < 0:
            raise ValueError(f"{self.folder}: was prepared without text about {self.ids[index]}")
        return self._sentences[row]

    def category(self, index: int) -> int:
        if not self._categories:
            raise ValueError(f"{self.folder}: was prepared without categories")
        return self._categories[index]

    def find_damaged_files(self) -> list[str]:
        """Return a line for each file whose content is not what was written."""
        return [
            f"{self.folder / name}: its checksum differs: prepare anew"
            for name, expected in self._checksums.items()
            if checksum((self.folder / name).read_bytes()) != expected
        ]
