"""HDF5 files: sizes, filters and links are checked before data are read.

All files here are sound: where a file would have to be damaged, the check is given another size.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from recon.data.datasets.scanobjectnn import ScanObjectNN
from recon.data.io import hdf5
from recon.data.io.hdf5 import check_hdf5_dataset
from trees import write_scanobjectnn

CLOUDS = np.random.default_rng(0).normal(size=(4, 2048, 3)).astype(np.float32)
GZIP = {"chunks": (1, 2048, 3), "compression": "gzip"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of one split, in a folder that has all others."""
    write_scanobjectnn(tmp_path)
    return tmp_path / "main_split" / "training_objectdataset.h5"


def write(path: Path, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=CLOUDS, **options)
        file["label"] = np.arange(4)


def check(path: Path, size: int | None = None) -> None:
    with h5py.File(path) as file:
        check_hdf5_dataset(file["data"], path.stat().st_size if size is None else size)


@pytest.mark.parametrize("numbers", ["floats", "any"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "gzip", "chunks": (1, 99, 3)},
        {"compression": "gzip", "chunks": (2, 1000, 3), "shuffle": True, "fletcher32": True},
        {"chunks": (4, 2048, 3), "fletcher32": True},
    ],
)
def test_clouds_of_all_layouts_are_read(options: dict[str, Any], numbers: str, path: Path) -> None:
    clouds: np.ndarray = CLOUDS
    if numbers == "any":  # cannot be compressed
        clouds = np.random.default_rng(0).integers(0, 2**31, CLOUDS.shape).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=clouds, **options)
        file["label"] = np.arange(4)
    dataset = ScanObjectNN(path.parents[1])
    assert len(dataset) == 4
    np.testing.assert_array_equal(dataset.cloud(3).points, clouds[3].astype(np.float32))


def test_numbers_take_no_more_memory_than_their_file_explains(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path)
    check(path, 2000)
    with pytest.raises(ValueError, match=r"`data` .*98,304"):
        check(path, 1000)
    write(path, chunks=(8, 2048, 3), maxshape=(None, 2048, 3), compression="gzip")
    check(path)
    monkeypatch.setattr(hdf5, "MIN_UNPACK_LIMIT", 100_000)
    with pytest.raises(ValueError, match=r"`data` .*196,608"):
        check(path)


@pytest.mark.parametrize("options", [GZIP, {"chunks": (1, 2048, 3)}, {}])
def test_numbers_that_were_never_written_are_refused(options: dict[str, Any], path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (4, 2048, 3), np.float32, **options)
        file["padding"] = np.ones(9999)
    with pytest.raises(ValueError, match=r"`data` was never|of its 4 chunks|of the 4 chunks"):
        check(path)


@pytest.mark.parametrize("options", [GZIP, GZIP | {"fletcher32": True}])
def test_chunks_unpack_to_the_declared_length(
    options: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        def decompress(self, content: bytes, limit: int) -> bytes:
            return zlib.decompress(content)[:-1]

    write(path, **options)
    check(path)
    monkeypatch.setattr(hdf5.zlib, "decompressobj", Short)
    with pytest.raises(ValueError, match="a chunk of `data`"):
        check(path)


def test_chunks_without_compression_have_the_declared_length(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, chunks=(1, 2048, 3), fletcher32=True)
    check(path)
    monkeypatch.setattr(hdf5, "CHECKSUM_BYTES", 3)
    with pytest.raises(ValueError, match="a chunk of `data`"):
        check(path)


def test_chunks_together_are_no_larger_than_their_file(path: Path) -> None:
    write(path, **GZIP)
    with pytest.raises(ValueError, match="`data` has .*chunks"):
        check(path, 9000)


def test_other_filters_are_refused(path: Path) -> None:
    write(path, chunks=(1, 2048, 3), compression="lzf")
    with pytest.raises(ValueError, match=r"`data` .*filters \[32000\]"):
        check(path)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((4,))
    layout.set_deflate(9)
    layout.set_deflate(9)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, layout)
        file["data"][:] = np.arange(4)
    with pytest.raises(ValueError, match=r"`data` .*filters \[1, 1\]"):
        check(path)


OTHER_CONTENT: dict[str, Callable[[h5py.File], Any]] = {
    "texts": lambda file: file.create_dataset("data", (1, 2, 3), h5py.string_dtype()),
    "lists": lambda file: file.create_dataset("data", (1, 2, 3), h5py.vlen_dtype(np.float32)),
    "group": lambda file: file.create_group("data"),
    "soft_link": lambda file: file.__setitem__("data", h5py.SoftLink("/label")),
    "link": lambda file: file.__setitem__(
        "data", h5py.ExternalLink("test_objectdataset.h5", "data")
    ),
    "elsewhere": lambda file: file.create_dataset(
        "data", (1, 2048, 3), np.float32, external=[("numbers", 0, 2048 * 12)]
    ),
}


@pytest.mark.parametrize("name", OTHER_CONTENT)
def test_other_content_and_data_of_other_files_are_refused(name: str, path: Path) -> None:
    (path.parent / "numbers").write_bytes(bytes(2048 * 12))
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(1, np.int32)
        OTHER_CONTENT[name](file)
    with pytest.raises(ValueError, match=r"training_objectdataset\.h5: .*`data`"):
        ScanObjectNN(path.parents[1])


def test_views_of_other_files_are_refused(path: Path) -> None:
    layout = h5py.VirtualLayout((1, 2048, 3), np.float32)
    source = h5py.VirtualSource(
        str(path.parent / "test_objectdataset.h5"), "data", shape=(15, 2048, 3)
    )
    layout[:] = source[:1]
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(1, np.int32)
        file.create_virtual_dataset("data", layout)
    with pytest.raises(ValueError, match=r"training_objectdataset\.h5: .*`data`.* other files"):
        ScanObjectNN(path.parents[1])
