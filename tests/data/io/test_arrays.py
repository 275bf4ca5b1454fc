"""Arrays, JSON files and lists: sizes are checked, and every bad file is named."""

import io
import struct
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from recon.data.io import arrays
from recon.data.io.arrays import read_json, read_lines, read_npy, read_npz


@pytest.mark.parametrize(
    ("shape", "reason"),
    [("(90, 3)", r"\(90, 3\)"), ("(-4, 3)", r"\(-4, 3\)"), ("(1, 3)", "72 bytes"), ("four", "")],
)
def test_an_array_is_as_large_as_its_header_announces(
    shape: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 3)))
    assert read_npy(path).shape == (4, 3)
    content = path.read_bytes()
    # The header keeps its length: it is padded with blanks.
    new = f"{shape}, }}".ljust(len("(4, 3), } "))
    header = content.replace(b"(4, 3), }".ljust(len(new)), new.encode())
    assert header != content
    path.write_bytes(header)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{reason}"):
        read_npy(path)


def test_formats_of_other_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for version in ((1, 0), (2, 0), (3, 0)):
        with path.open("wb") as file:
            np.lib.format.write_array(file, np.ones((4, 3)), version)
        assert read_npy(path).shape == (4, 3)
    content = bytearray(path.read_bytes())
    content[6] = 9
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy: .*version .9, 0"):
        read_npy(path)


def test_arrays_of_every_layout_come_back(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((3, 2))), np.zeros(0),
                  np.arange(3, dtype=">i4"), np.float32(3)):  # fmt: skip
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_npy(tmp_path / "a.npy"), array)
        np.savez_compressed(tmp_path / "a.npz", x=array)
        assert np.array_equal(read_npz(tmp_path / "a.npz")["x"], array)


@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MIN_UNPACK_LIMIT"])
def test_an_archive_unpacks_to_a_limited_size(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(10_000))
    monkeypatch.setattr(arrays, "MAX_UNPACK_RATIO", 1)
    monkeypatch.setattr(arrays, limit, 80_127)  # with a header of 128 bytes
    with pytest.raises(ValueError, match=r"a\.npz: .*unpacks to 80,128"):
        read_npz(path)
    monkeypatch.setattr(arrays, limit, 80_128)
    assert len(read_npz(path)["x"]) == 10_000


def test_archives_of_other_compression_or_with_a_name_twice_are_refused(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npz", io.BytesIO()
    np.save(array, np.ones((9, 3)))
    with ZipFile(path, "w", ZIP_BZIP2) as file:
        file.writestr("points.npy", array.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz: .*numpy"):
        read_npz(path)
    with ZipFile(path, "w") as file:
        file.writestr("points.npy", array.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("points.npy", array.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz: .*name"):
        read_npz(path)


@pytest.mark.parametrize("announced", [200, 264])
def test_members_have_the_size_that_their_archive_announces(announced: int, tmp_path: Path) -> None:
    path, array = tmp_path / "a.npz", io.BytesIO()
    np.save(array, np.ones((4, 3)))
    assert len(array.getvalue()) == 224
    with ZipFile(path, "w", ZIP_DEFLATED) as file:
        file.writestr("points.npy", array.getvalue())
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # in the directory at the end
    content[place : place + 4] = struct.pack("<I", announced)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: not a readable archive"):
        read_npz(path)


def test_broken_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(1000))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[200:300] = b"x" * 100
    for content in (whole[:100], b"no archive", bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz: not a readable archive"):
            read_npz(path)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(ValueError, match=r"a\.npz: not a readable archive"):
        read_npz(path)


def test_lists_and_json_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n\n b \n")
    assert read_lines(path) == ["a", "b"]
    path.write_bytes(b"\xff\xfe\x00")
    for read in (read_lines, read_json):
        with pytest.raises(ValueError, match=r"list\.txt: not a"):
            read(path)


def test_json_files_have_a_limited_size_and_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    monkeypatch.setattr(arrays, "MAX_JSON_BYTES", 5)
    with pytest.raises(ValueError, match=r"x\.json: "):
        read_json(path)
    monkeypatch.setattr(arrays, "MAX_JSON_BYTES", 6)
    assert read_json(path) == [1, 2]

    def recurse(text: bytes) -> None:
        raise RecursionError

    monkeypatch.setattr("json.loads", recurse)
    with pytest.raises(ValueError, match=r"x\.json: not a readable JSON file .*RecursionError"):
        read_json(path)


def test_text_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('["\\ud83d\\ude00"]')
    assert read_json(path) == ["\U0001f600"]
    path.write_text('["\\ud83d"]')
    with pytest.raises(ValueError, match=r"x\.json: not a readable JSON file"):
        read_json(path)
