"""LAS and LAZ files: headers are checked, packed points are read by one thread."""

import multiprocessing
import struct
import sys
from pathlib import Path
from typing import Any

import laspy
import lazrs
import numpy as np
import pytest

from recon.data.io import las as las_module
from recon.data.io.las import check_las, read_las
from recon.data.io.points.table import ReadOptions

POINTS = np.random.default_rng(0).uniform(0, 99, (50, 3)).round(2)
RECORDS, POINT_FORMAT = 100, 104
"""Positions in the header: the number of variable-length records, and the point format."""


def write(path: Path, point_format: int = 3, count: int = 50) -> bytearray:
    data = laspy.LasData(laspy.LasHeader(point_format=point_format, version="1.4"))
    data.header.vlrs.append(laspy.VLR("tests", 7, record_data=b"a record before the points"))
    data.x, data.y, data.z = np.tile(POINTS, (-(-count // 50), 1))[:count].T
    data.write(path)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("place", "kind", "value", "reason"),
    [
        (247, "<Q", 900, "900 points"),
        (RECORDS, "<I", 90, r"\b90 .*records"),
        (243, "<I", 90, r"\b91 .*records"),
        (96, "<I", 9000, "points"),
        (96, "<I", 300, "header"),
    ],
)
def test_headers_announce_no_more_than_the_file_holds(
    place: int, kind: str, value: int, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.las"
    content = write(path)
    check_las(path)
    struct.pack_into("<Q", content, 235, len(content))  # where further records would begin
    struct.pack_into(kind, content, place, value)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        check_las(path)


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    for content in (b"LASF", b"LAS!" + bytes(400)):
        (tmp_path / "x.las").write_bytes(content)
        with pytest.raises(ValueError, match="header"):
            check_las(tmp_path / "x.las")


@pytest.mark.parametrize("point_format", [3, 6])
def test_packed_points_are_as_long_as_announced(point_format: int, tmp_path: Path) -> None:
    """The length in the header is given to the check, beside a sound file."""
    path = tmp_path / "x.laz"
    head = bytes(write(path, point_format)[:375])
    (length,) = struct.unpack_from("<H", head, 105)
    las_module._check_laz(path, head, length)
    check_las(path)
    with pytest.raises(ValueError, match=rf"{length + 1} .*{length}\b"):
        las_module._check_laz(path, head, length + 1)


def test_chunks_fit_into_their_file(tmp_path: Path) -> None:
    path = tmp_path / "x.laz"
    content = write(path)
    (start,) = struct.unpack_from("<I", content, 96)
    (table,) = struct.unpack_from("<q", content, start)
    struct.pack_into("<I", content, table + 4, 90)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\b90 chunks"):
        check_las(path)


def test_layers_fit_into_their_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.laz"
    write(path, point_format=6)
    check_las(path)
    monkeypatch.setattr(lazrs, "read_chunk_table", lambda file, record: [(50, 10)])
    with pytest.raises(ValueError, match=r"\b10\b"):
        check_las(path)


def test_layers_of_several_chunks_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.laz"
    write(path, point_format=6, count=120_000)
    assert len(read_las(path, ReadOptions()).points) == 120_000


def test_a_place_of_the_chunk_table_that_was_written_last_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.laz"
    content = write(path)
    (start,) = struct.unpack_from("<I", content, 96)
    place = bytes(content[start : start + 8])
    content[start : start + 8] = struct.pack("<q", -1)
    path.write_bytes(content + place)
    check_las(path)


def test_points_are_unpacked_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends: list[Any] = []
    read = laspy.read

    def record(path: Path, laz_backend: Any) -> Any:
        backends.extend(laz_backend)
        return read(path, laz_backend=laz_backend)

    monkeypatch.setattr(laspy, "read", record)
    write(tmp_path / "x.laz")
    np.testing.assert_allclose(
        read_las(tmp_path / "x.laz", ReadOptions()).points, POINTS, atol=0.01
    )
    assert backends
    assert laspy.LazBackend.LazrsParallel not in backends


def test_packed_points_are_read_in_forked_workers(tmp_path: Path) -> None:
    path = tmp_path / "x.laz"
    write(path)
    read_las(path, ReadOptions())  # threads that are started here do not exist in the fork
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert len(pool.apply_async(read_las, (path, ReadOptions())).get(timeout=60).points) == 50


class PanicException(BaseException):
    """Named as the exception of packages that are written in Rust."""


class Interrupt(BaseException):
    """Any other exception that is no error."""


@pytest.mark.parametrize("error", [PanicException, Interrupt])
def test_an_unpacker_that_gives_up_is_an_error_of_the_file(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(path: Path, **_: Any) -> None:
        raise error("stopped")

    write(tmp_path / "x.laz")
    monkeypatch.setattr(laspy, "read", give_up)
    expected = ValueError if error is PanicException else Interrupt
    with pytest.raises(expected, match="stopped"):
        read_las(tmp_path / "x.laz", ReadOptions())


def test_missing_points_and_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.las"
    content = write(path)
    path.write_bytes(content[: len(content) - 34 * 10])
    monkeypatch.setattr(las_module, "check_las", lambda path: None)
    with pytest.raises(ValueError, match=r"x\.las: .*\b40\b"):
        read_las(path, ReadOptions())
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(ValueError, match=r"x\.las: .*pip install"):
        read_las(path, ReadOptions())
