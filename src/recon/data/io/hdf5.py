"""Read arrays of HDF5 files, and check their declared sizes before memory is allocated."""

import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon.data.io.file_checks import (
    MIN_UNPACK_LIMIT,
    UnsupportedContentError,
    check_file,
    wrap_read_errors,
)

SHUFFLE, CHECKSUM = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
DEFLATE = h5py.h5z.FILTER_DEFLATE
CHECKSUM_BYTES = 4
MAX_EXPANSION = 64
"""Maximum ratio of the size of a data set in memory to the size of its file."""


def read_hdf5(
    path: Path, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Read the data sets `names`, and those of `optional` that the file has, by name.

    Links to other files are not followed. Raises ValueError or FileNotFoundError that names the
    file.
    """
    with wrap_read_errors(path, "HDF5 file"), h5py.File(check_file(path), "r") as file:
        present = [name for name in optional if name in file]
        return {name: _read_dataset(file, name, path) for name in (*names, *present)}


def _read_dataset(file: h5py.File, name: str, path: Path) -> np.ndarray:
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise ValueError(f"it has no data set `{name}`, only {sorted(file)}")
    data = file[name]
    if data.external or data.is_virtual:
        raise ValueError(f"`{name}` is stored in other files")
    check_hdf5_dataset(data, path.stat().st_size)
    return data[:]


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
