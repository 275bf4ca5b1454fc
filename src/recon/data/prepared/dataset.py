"""Read a split of the prepared layout from memory-mapped shards; see `layout` for the files."""

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
from recon.data.io.file_checks import (
    UnsupportedContentError,
    check_cloud,
    check_labels,
    wrap_read_errors,
)
from recon.data.io.image_checks import decode_image
from recon.data.prepared.layout import FORMAT_VERSION, INDEX_NAME, POINT_FIELDS, checksum
from recon.data.transforms import axis_index
from recon.utils.printable import check_printable

MAX_OPEN_SHARDS = 1024
"""Maximum number of shards that a process keeps mapped."""


class PreparedDataset(PointCloudDataset):
    """Read one split of the prepared layout; its samples equal those of the original files.

    Raises FileNotFoundError or ValueError that names a missing or damaged file, or one prepared
    with other settings than `expected`.
    """

    def __init__(self, root: Path, split: str, expected: dict[str, Any] | None = None) -> None:
        self.folder = root / split
        path = self.folder / INDEX_NAME
        if not path.is_file():
            available = sorted(index.parent.name for index in root.glob(f"*/{INDEX_NAME}"))
            raise FileNotFoundError(
                f"{path}: not found: the prepared splits are {', '.join(available) or 'none'}; "
                "`python -m recon.prepare` adds others"
            )
        index = read_json(path)
        with wrap_read_errors(path, "index of a prepared data set"):
            if index["format"] != FORMAT_VERSION:
                raise UnsupportedContentError(
                    f"it has format version {index['format']}, this version of the library reads "
                    f"{FORMAT_VERSION}: prepare the data set again"
                )
            self._set_fields(index)
        for key, value in (expected or {}).items():
            if (prepared_value := self._settings.get(key)) != value:
                raise ValueError(
                    f"{path}: was prepared with {key}={prepared_value}, not with {key}={value}: "
                    "change the option, or prepare the original into another folder"
                )
        self._check_shard_sizes()

    def _set_fields(self, index: dict[str, Any]) -> None:
        """Set all fields from the index; raise ValueError if they are inconsistent."""
        counts = [file["clouds"] for file in index["files"]]
        columns = (
            index["labels"], index["families"], index["categories"], index["sentences"]["rows"]
        )  # fmt: skip
        if not all(type(number) is int for column in (counts, *columns) for number in column):
            raise ValueError("it has classes or counts that are not integers")
        if min(counts, default=0) < 0:
            raise ValueError("it has a shard with a negative number of clouds")
        self.ids, self.classes = index["ids"], index["classes"]
        self.labels = np.array(index["labels"], dtype=np.int64)
        self.families = np.array(index["families"], dtype=np.int64)
        self.point_classes, self.parts = index["point_classes"], index["parts"]
        self.up, self.mirrored = index["up"], index["mirrored"]
        self._categories: list[int] = index["categories"]
        self._sentences: list[list[str]] = index["sentences"]["lists"]
        self._sentence_rows: list[int] = index["sentences"]["rows"]
        self._shard_names = [file["name"] for file in index["files"]]
        self._shard_ends = list(accumulate(counts))
        self._shards: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._check_counts()
        self._check_names()
        self._check_classes()
        self._shard_sizes = {file["name"]: file["bytes"] for file in index["files"]}
        self._checksums = {file["name"]: str(file["sha256"]) for file in index["files"]}
        self._settings = dict(index["settings"])

    def _check_counts(self) -> None:
        """Raise ValueError for columns of the wrong length, or missing sentences."""
        count = self._shard_ends[-1] if self._shard_ends else 0
        columns = (self.labels, self.families, self._categories, self._sentence_rows)
        if len(self.ids) != count or any(len(column) not in (0, count) for column in columns):
            raise ValueError(f"it lists {len(self.ids)} clouds, its shards contain {count}")
        if not all(-1 <= row < len(self._sentences) for row in self._sentence_rows):
            raise ValueError("it refers to sentences that it does not have")

    def _check_names(self) -> None:
        """Raise ValueError for names that are not printable text, or unknown shard names."""
        lists = [self.ids, self.classes, self.point_classes, self._shard_names, *self._sentences]
        if not all(isinstance(names, list) for names in lists) or not all(
            isinstance(name, str) for names in lists for name in names
        ):
            raise ValueError("it has names that are not lists of text")
        check_printable((name for names in lists[:4] for name in names), "it")
        for name in self._shard_names:
            if not re.fullmatch(r"\d+\.safetensors", name):
                raise ValueError(f"it lists the file {name!r}, which is not the name of a shard")

    def _check_classes(self) -> None:
        """Raise ValueError for class numbers out of range, or an invalid up axis."""
        axis_index(self.up)
        if not isinstance(self.mirrored, bool):
            raise ValueError(f"it has mirrored={self.mirrored!r}, not true or false")
        categories = np.array(self._categories, dtype=np.int64)
        if any(column.ndim != 1 for column in (self.labels, self.families, categories)):
            raise ValueError("it has labels that are not a list of numbers")
        ranges = [(self.labels, self.classes), (categories, self.classes or self.ids)]
        for part_numbers in dict(self.parts).values():
            ranges.append((np.array(part_numbers, dtype=np.int64), self.point_classes))
        for numbers, names in ranges:
            if numbers.size and not -1 <= numbers.min() <= numbers.max() < len(names):
                raise ValueError(
                    f"it has class numbers from {numbers.min()} to {numbers.max()}, but "
                    f"{len(names)} classes"
                )

    def _check_shard_sizes(self) -> None:
        for name, expected in self._shard_sizes.items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size != expected:
                raise ValueError(
                    f"{path}: has {size} bytes of {expected}: copy it again, or prepare the data "
                    "set again"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict()}  # each process maps the files itself

    def _locate_cloud(self, index: int) -> tuple[dict[str, Any], int]:
        """Return the opened shard of a cloud and its row in this shard."""
        number = bisect_right(self._shard_ends, index)
        if number not in self._shards:
            if len(self._shards) >= MAX_OPEN_SHARDS:
                self._shards.popitem(last=False)
            self._shards[number] = self._open_shard(self.folder / self._shard_names[number])
        return self._shards[number], index - (self._shard_ends[number - 1] if number else 0)

    def _open_shard(self, path: Path) -> dict[str, Any]:
        with wrap_read_errors(path, "shard of a prepared data set"):
            file = safe_open(path, framework="np")
            available = file.keys()
            slices = {
                name: file.get_slice(name)
                for name in (*POINT_FIELDS, "images")
                if name in available
            }
            offsets = {f"{name}_offsets": file.get_tensor(f"{name}_offsets") for name in slices}
            return slices | offsets

    def _read_field(self, index: int, name: str) -> np.ndarray | None:
        """Return one field of a cloud, None without it; raise ValueError for a damaged shard."""
        shard, row = self._locate_cloud(index)
        if name not in shard:
            return None
        try:
            start, end = (int(offset) for offset in shard[f"{name}_offsets"][row : row + 2])
            return shard[name][start:end] if end > start else None
        except Exception as error:  # damaged files raise errors of any type
            raise ValueError(
                f"{self.folder}: damaged at {self.ids[index]}: prepare the data set again"
            ) from error

    def cloud(self, index: int) -> Cloud:
        fields = {name: self._read_field(index, name) for name in POINT_FIELDS}
        source = f"{self.folder} ({self.ids[index]})"
        fields["points"] = points = check_cloud(fields["points"], source)
        for name in ("normals", "colors"):
            if (values := fields[name]) is not None and values.dtype != np.uint8:
                check_cloud(values, f"{source}, {name}")
        if any(values is not None and len(values) != len(points) for values in fields.values()):
            raise ValueError(
                f"{source}: normals, colors or labels do not match the number of points: prepare "
                "the data set again"
            )
        if (labels := fields["point_labels"]) is not None:
            check_labels(labels + 1, len(points), len(self.point_classes) + 1, source)
            fields["point_labels"] = labels.astype(np.int64)
        return Cloud(**cast(Any, fields))

    def image_bytes(self, index: int) -> bytes | None:
        content = self._read_field(index, "images")
        return None if content is None else content.tobytes()

    def image(self, index: int) -> Image.Image:
        content = self.image_bytes(index)
        if content is None:
            raise ValueError(
                f"{self.folder}: was prepared without an image of {self.ids[index]}: prepare the "
                "data set again with images=true, if it has images"
            )
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
        """Return a message for each shard whose checksum is not that of the written file."""
        return [
            f"{self.folder / name}: its checksum differs: copy it again, or prepare the data set "
            "again"
            for name, expected in self._checksums.items()
            if checksum((self.folder / name).read_bytes()) != expected
        ]
