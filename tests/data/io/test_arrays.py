from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from recon.data.io import arrays
from recon.data.io.arrays import read_json, read_lines, read_npy, read_npz
from recon.data.io.file_checks import check_cloud, check_file, check_labels, resolve_inside
from recon.data.io.image_checks import decode_image
from recon.data.io.text_table import read_table

TABLE = np.array([[0.5, -1.0, 2.25], [1e-3, 4.0, 5.0]])


@pytest.mark.parametrize(
    "text",
    [
        "0.5 -1.0 2.25\n0.001 4 5\n",
        "0.5,-1.0,2.25\r\n1e-3,4,5",
        "0.5;-1;2.25\n\n1e-3;\t4 ; 5\n\n",
        "# a comment\n0.5 -1.0 2.25\n0.001 4 5 # another\n",
        "x y z\n0.5 -1.0 2.25\n0.001 4 5\n",
        "2\n0.5 -1.0 2.25\n0.001 4 5\n",
    ],
)
def test_tables_of_many_dialects_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text(text)
    assert np.array_equal(read_table(path), TABLE)


def test_a_byte_that_no_text_holds_separates(tmp_path: Path) -> None:
    path = tmp_path / "ceiling_1.txt"
    for byte in (b"\x10", b"\x00", b"\xff", b"\xc3\xa9"):
        path.write_bytes(b"1 2 3 185" + byte + b"187 157\n4 5 6 7 8 9\n")
        assert read_table(path, columns=(6,))[0].tolist() == [1, 2, 3, 185, 187, 157]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "no lines of numbers"),
        (b"x y z\n", "no lines of numbers"),
        (b"1 2 3\n4 5\n", "row 2"),
        (b"1 2 3\n4 five 6\n", "five"),
        (b"1 2 3 4\n", "has 4 columns, expected 3 or 6"),
    ],
)
def test_broken_tables_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "chair.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"chair\.txt: .*{message}"):
        read_table(path, columns=(3, 6))


def test_an_announced_size_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "huge.npy"
    np.save(path, np.zeros((4, 3)))
    content = path.read_bytes()
    # The header keeps its length: the shape is padded with blanks.
    header = content.replace(b"(4, 3), }         ", b"(400000000000, 3)}")
    assert header != content
    path.write_bytes(header)
    with pytest.raises(ValueError, match=r"huge\.npy: .*the file ends before"):
        read_npy(path)


def test_arrays_of_every_layout_come_back(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((3, 2))), np.zeros(0),
                  np.arange(3, dtype=">i4"), np.float32(3)):  # fmt: skip
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_npy(tmp_path / "a.npy"), array)
        np.savez_compressed(tmp_path / "a.npz", x=array)
        assert np.array_equal(read_npz(tmp_path / "a.npz")["x"], array)


def test_archives_that_unpack_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(100_000))
    monkeypatch.setattr(arrays, "MAX_FILE_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"bomb\.npz: .*unpacks to"):
        read_npz(tmp_path / "bomb.npz")


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


def test_files_too_large_for_one_cloud_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    np.save(path, np.zeros((100, 3)))
    with pytest.raises(ValueError, match=r"big\.npy: has .* split it into smaller files"):
        check_file(path, max_bytes=1000)
    assert check_file(path) == path


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 3)), "has no points"),
        (np.zeros((5, 2)), r"expected numbers of shape \(N, 3\)"),
        (np.zeros((5, 3), dtype=complex), "complex"),
        (np.array([[0, 0, np.inf], [0, 0, 0]]), "1 of 2 points are NaN or infinite"),
        (np.array([[0, 0, 1e300], [0, 0, 0]]), "1 of 2 points are NaN or infinite"),
        ({"points": 1}, "holds a dict"),
    ],
)
def test_bad_clouds_are_named(points: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"x.npy: .*{message}"):
        check_cloud(points, "x.npy")


def test_labels_are_whole_numbers_in_range() -> None:
    assert check_labels(np.array([[2], [0.0]]), 2, 3, "x").tolist() == [2, 0]
    for labels, message in (([0, 3], "label 3 .number 1. is none of the 3"), ([-1, 0], "label -1"),
                            ([0.5, 1], "label 0.5"), ([0], "has 1 labels for 2"),
                            (["a", "b"], "labels for 2"), ([np.nan, 0], "label nan")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_labels(np.array(labels), 2, 3, "x")


def test_lists_and_json_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n\n b \n")
    assert read_lines(path) == ["a", "b"]
    path.write_bytes(b"\xff\xfe\x00")
    for read in (read_lines, read_json):
        with pytest.raises(ValueError, match=r"list\.txt: not a"):
            read(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"list\.txt: not a readable JSON"):
        read_json(path)


def test_pictures_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (64, 64), 7).save(path)
    whole = path.read_bytes()
    assert decode_image(whole, path).getpixel((3, 3)) == (7, 7, 7)
    for content in (b"", b"no picture", whole[:60]):
        with pytest.raises(ValueError, match=r"a\.png: not a readable picture"):
            decode_image(content, path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png: not a readable picture"):
        decode_image(whole, path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b", "..\\x"])
def test_lists_cannot_lead_outside(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.csv: lists .* no path inside"):
        resolve_inside(tmp_path, name, "list.csv")
    assert resolve_inside(tmp_path, "a/../b.ply", "list.csv") == tmp_path / "b.ply"
