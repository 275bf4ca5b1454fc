"""ScanObjectNN: scans of real objects in 15 classes, 2,048 points each, y up [1].

[1] Uy et al., arXiv:1908.04616.
"""

import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.io.file_checks import (
    MIN_UNPACK_LIMIT,
    UnsupportedContentError,
    check_cloud,
    check_file,
    check_labels,
    wrap_read_errors,
)
from recon.teachers.prompts import build_prompts

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door",
    "shelf", "table", "bed", "pillow", "sink", "sofa", "toilet",
)  # fmt: skip
SHUFFLE, CHECKSUM = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
DEFLATE = h5py.h5z.FILTER_DEFLATE
CHECKSUM_BYTES = 4
MAX_EXPANSION = 64
"""Maximum ratio of the size of a data set in memory to the size of its file."""
HARDEST_SUFFIX = "_objectdataset_augmentedrot_scale75.h5"
VARIANTS = {
    "OBJ_BG": ("main_split", "_objectdataset.h5"),
    "OBJ_ONLY": ("main_split_nobg", "_objectdataset.h5"),
    "PB_T50_RS": ("main_split", HARDEST_SUFFIX),
}
LAYOUT = ExpectedLayout(
    "ScanObjectNN",
    """\
{root}/
  main_split/training_objectdataset.h5, main_split/test_objectdataset.h5             OBJ_BG
  main_split_nobg/training_objectdataset.h5, main_split_nobg/test_objectdataset.h5   OBJ_ONLY
  main_split/training_objectdataset_augmentedrot_scale75.h5, main_split/test_...     PB_T50_RS""",
    "https://hkust-vgd.github.io/scanobjectnn/",
)


def check_hdf5_dataset(data: h5py.Dataset, size: int) -> None:
    """Raise ValueError for a data set that needs far more memory than its file of `size` bytes.

    HDF5 trusts the declared sizes: it fills missing data, decompresses whole chunks, and limits
    neither the decompressed size of a chunk nor variable-length values that many elements share.
    """
    if data.dtype.kind not in "iuf":
        raise ValueError(f"`{data.name[1:]}` contains {data.dtype}, not numbers")
    chunk = prod(data.chunks or ()) * data.dtype.itemsize
    num_bytes = max(chunk, data.nbytes)
    if num_bytes > MAX_EXPANSION * size or chunk > max(data.nbytes, MIN_UNPACK_LIMIT):
        raise ValueError(
            f"`{data.name[1:]}` declares {num_bytes:,} bytes, too many for a file of {size:,} bytes"
        )
    if data.chunks:
        _check_chunks(data, chunk, size)
    elif data.id.get_storage_size() < data.nbytes:
        raise ValueError(f"`{data.name[1:]}` was never written")


def _check_chunks(data: h5py.Dataset, length: int, size: int) -> None:
    """Raise ValueError for missing chunks and chunks that do not decompress to `length` bytes.

    HDF5 reads past the end of a chunk that is too short.
    """
    layout, name = data.id.get_create_plist(), data.name[1:]
    filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
    if not set(filters) <= {SHUFFLE, CHECKSUM, DEFLATE} or len({*filters}) < len(filters):
        raise UnsupportedContentError(
            f"`{name}` uses the HDF5 filters {filters}: write it again with gzip compression"
        )
    chunks: list[Any] = []
    data.id.chunk_iter(chunks.append)
    num_chunks = prod(-(-n // chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
    if len(chunks) != num_chunks:
        raise ValueError(f"`{name}` has {len(chunks)} of its {num_chunks} chunks")
    if sum(chunk.size for chunk in chunks) > size:
        raise ValueError(f"`{name}` has overlapping chunks")
    for chunk in chunks:
        if _unpacked_size(data, chunk, filters, length) != length:
            raise ValueError(f"a chunk of `{name}` does not have its declared length")


def _unpacked_size(data: h5py.Dataset, chunk: Any, filters: Sequence[int], length: int) -> int:
    """Return the decompressed size of a chunk in bytes; stop one byte after `length`."""
    applied = [kind for index, kind in enumerate(filters) if not chunk.filter_mask >> index & 1]
    checksum = CHECKSUM_BYTES if CHECKSUM in applied else 0
    if DEFLATE not in applied:
        return int(chunk.size) - checksum
    # A checksum added before compression is part of the decompressed bytes.
    overhead = checksum if CHECKSUM in applied[: applied.index(DEFLATE)] else 0
    content = data.id.read_direct_chunk(chunk.chunk_offset)[1]
    return len(zlib.decompressobj().decompress(content, length + overhead + 1)) - overhead


class ScanObjectNN(PointCloudDataset):
    """Read one part, train or test, of a variant: OBJ_BG, OBJ_ONLY or PB_T50_RS (hardest)."""

    classes = CLASSES
    in_memory = True

    def __init__(self, root: str | Path, split: str = "train", *, variant: str = "OBJ_BG") -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"ScanObjectNN has no variant {variant!r}: choose {', '.join(VARIANTS)}"
            )
        folder, suffix = VARIANTS[variant]
        name = f"{folder}/{'training' if split == 'train' else split}{suffix}"
        path = LAYOUT.find_root(Path(root), name, ["ScanObjectNN", "h5_files"]) / name
        with wrap_read_errors(path, "HDF5 file"), h5py.File(check_file(path), "r") as file:
            for key in ("data", "label"):
                # Links to other files are rejected.
                link = file.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink) or not isinstance(file[key], h5py.Dataset):
                    raise ValueError(f"it has no data set `{key}`, only {sorted(file)}")
                if file[key].external or file[key].is_virtual:
                    raise ValueError(f"`{key}` is stored in other files")
                check_hdf5_dataset(file[key], path.stat().st_size)
            self._points, labels = file["data"][:], file["label"][:]
        if self._points.ndim != 3 or self._points.shape[2] < 3 or not len(self._points):
            raise ValueError(
                f"{path}: `data` has shape {self._points.shape}, expected (n, 2048, 3)"
            )
        self._source = path
        self.labels = check_labels(labels, len(self._points), len(CLASSES), str(path))
        self.ids = [f"{split}-{row}" for row in range(len(self._points))]

    def file_paths(self, index: int) -> list[Path]:
        return [self._source]

    def cloud(self, index: int) -> Cloud:
        points: np.ndarray = self._points[index]
        return Cloud(check_cloud(points, f"{self._source} (row {index})"))

    def texts(self, index: int) -> list[str]:
        return build_prompts(CLASSES[self.labels[index]])

    def category(self, index: int) -> int:
        return int(self.labels[index])


class ScanObjectNNDataModule(PointCloudDataModule):
    """Provide batches of one variant of ScanObjectNN."""

    splits = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}

    def __init__(
        self,
        root: str | Path,
        *,
        variant: str = "OBJ_BG",
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        super().__init__(root, test_split=test_split, **loading)
        self.variant = variant
        is_hardest = variant == "PB_T50_RS"
        self.published_sizes = (
            {"train": 11_416, "test": 2_882} if is_hardest else {"train": 2_309, "test": 581}
        )

    def settings(self) -> dict[str, Any]:
        return {"variant": self.variant}

    def read_part(self, part: str) -> ScanObjectNN:
        return ScanObjectNN(self.root, part, variant=self.variant)
