"""Parquet tables: another process reads the footer first, and columns have limited sizes."""

import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from recon.data.datasets.folder import ShapeFolder
from recon.data.io import parquet
from recon.data.io.parquet import FOOTER_PROBE, check_footer, read_columns


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no other interpreter with pyarrow for each table; one test does."""
    monkeypatch.setattr(parquet, "FOOTER_PROBE", "")


def write(file: Path, /, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


@pytest.mark.parametrize(
    ("probe", "is_ended"),
    [("import os; os.kill(os.getpid(), 15)", True), ("raise SystemExit(1)", False), ("", False)],
)
def test_a_footer_that_ends_its_probe_is_refused(
    probe: str, is_ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that ends itself stands for one that a file ends."""
    path = write(tmp_path / "x.parquet", path=["a.npy"])
    monkeypatch.setattr(parquet, "FOOTER_PROBE", probe)
    if is_ended:
        with pytest.raises(ValueError, match=r"x\.parquet: not a readable .*\b-?15\b"):
            ShapeFolder(path)
    else:
        assert ShapeFolder(path).ids == ["a.npy"]


def test_the_probe_reads_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FOOTER_PROBE", FOOTER_PROBE)
    check_footer(write(tmp_path / "x.parquet", a=[1], b=["x"]))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    check_footer(tmp_path / "cut.parquet")  # an ordinary error: the reader gives it again
    with pytest.raises(ValueError, match=r"cut\.parquet: not a readable Parquet table"):
        read_columns(tmp_path / "cut.parquet", ["a"])


def limit_bytes(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(parquet, "MIN_UNPACK_LIMIT", limit)
    monkeypatch.setattr(parquet, "MAX_UNPACK_RATIO", 0)


def test_columns_have_a_limited_number_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.parquet", a=np.zeros(50), b=np.zeros(50))
    limit_bytes(monkeypatch, 199)
    with pytest.raises(ValueError, match=r"x\.parquet: .*50 values"):
        read_columns(path, ["a"])
    limit_bytes(monkeypatch, 200)
    assert len(read_columns(path, ["a"])) == 50


@pytest.mark.parametrize(
    "kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(),
             pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.binary()], ids=str
)  # fmt: skip
def test_texts_have_a_limited_length_together(
    kind: pyarrow.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pyarrow.array(["x" * 100] * 20)
    column = values.dictionary_encode() if pyarrow.types.is_dictionary(kind) else values
    path = write(tmp_path / "x.parquet", a=column.cast(kind))
    limit_bytes(monkeypatch, 1999)
    with pytest.raises(ValueError, match=r"x\.parquet: .*texts"):
        read_columns(path, ["a"])
    limit_bytes(monkeypatch, 3000)
    assert len(read_columns(path, ["a"])["a"].to_pylist()) == 20


@pytest.mark.parametrize(
    "column", [[["a"], ["b", "c"]], [{"a": 1}, {"a": 2}], [[{"a": 1}], []]], ids=str
)
def test_columns_of_other_types_are_refused(column: object, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", a=column)
    with pytest.raises(ValueError, match=r"x\.parquet: .*column a"):
        read_columns(path, ["a"])


def test_lists_of_numbers_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", a=[[1.0], [2.0, 3.0]], b=[None, None])
    assert read_columns(path, ["a", "b"])["a"].to_pylist() == [[1.0], [2.0, 3.0]]


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", path=["a.npy"] * 5000)
    assert path.stat().st_size < 5000
    with pytest.raises(ValueError, match=r"x\.parquet: .*5000 rows"):
        ShapeFolder(path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", path=["a.npy"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="pip install"):
        ShapeFolder(path)


def test_a_label_that_is_not_a_number_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", path=["a.npy", "b.npy"], label=[float("nan"), 2.0])
    assert ShapeFolder(path).labels.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('path,label\n"a.npy,chair\nb.npy,chair\n', "unexpected end"),
        ("path,label\na.npy,chair,red\n", "line 2"),
        ("path,label,label\na.npy,chair,sofa\n", "two columns"),
    ],
)
def test_csv_tables_whose_cells_would_shift_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.csv: .*{reason}"):
        ShapeFolder(tmp_path / "x.csv")
