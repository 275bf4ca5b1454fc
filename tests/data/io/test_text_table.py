"""Text tables of many dialects are read, and text that would be misread is refused."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io.shape import read_shape
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


def test_an_unknown_number_of_columns_is_refused_after_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_bytes(b"0 " * 300 + b"\n")
    with pytest.raises(ValueError, match=r"x\.xyz: .*\(1, 300\)"):
        read_shape(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1 2 3\n4 5 6\n" + bytes(100), "text"),
        ("0.1\uff12 0 0\n1 1 1\n".encode(), "digits"),
        ("\u22121 2 3\n4 5 6\n".encode(), "digits"),
        ("\u20131 2 3\n4 5 6\n".encode(), "digits"),
        ("\uff0d1 2 3\n4 5 6\n".encode(), "digits"),
        ("12 3 4\n".encode("utf-16"), "UTF-16"),
        ("12 3 4 5 6 7\n".encode("utf-16-le"), "UTF-16"),
    ],
)
def test_text_that_would_be_misread_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.xyz: .*{reason}"):
        read_shape(path)


@pytest.mark.parametrize("comment", ["# points 1\u22122", "// 1\u20132", "# Gr\u00f6\u00dfe"])
def test_comments_may_hold_any_text(comment: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(f"{comment}\n1 2 3\n4 5 6\n", encoding="utf-8")
    assert len(read_shape(path).points) == 2


def test_a_table_of_comments_has_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text("# one\n# two\n")
    warns = pytest.warns(UserWarning, match="no data")
    with pytest.raises(ValueError, match=r"a\.xyz: .*no lines"), warns:
        read_table(path)
