"""Values and paths from files: what cannot be used is refused by an error that names its source."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io import file_checks
from recon.data.io.file_checks import (
    check_cloud,
    check_file,
    check_labels,
    resolve_inside,
    to_scalar,
    wrap_read_errors,
)


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
        ({"points": 1}, "contains a dict"),
    ],
)
def test_bad_clouds_are_named(points: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"x.npy: .*{message}"):
        check_cloud(points, "x.npy")


def test_labels_are_whole_numbers_in_range() -> None:
    assert check_labels(np.array([[2], [0.0]]), 2, 3, "x").tolist() == [2, 0]
    for labels, message in (([0, 3], "label 3 .number 1. is none of the 3"), ([-1, 0], "label -1"),
                            ([0.5, 1], "label 0.5"), ([0], "has 1 labels.* 2"),
                            (["a", "b"], "labels.* 2"), ([np.nan, 0], "label nan")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_labels(np.array(labels), 2, 3, "x")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b", "..\\x"])
def test_lists_cannot_lead_outside(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.csv: lists .* not a path inside"):
        resolve_inside(tmp_path, name, "list.csv")
    assert resolve_inside(tmp_path, "a/../b.ply", "list.csv") == tmp_path / "b.ply"


def test_paths_in_lists_have_a_limited_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a/" * 40 + "x.npy"
    assert resolve_inside(tmp_path, name, "list.csv") == tmp_path / name
    monkeypatch.setattr(file_checks, "MAX_PATH_CHARS", 84)
    with pytest.raises(ValueError, match=r"list\.csv: .* 85 characters") as caught:
        resolve_inside(tmp_path, name, "list.csv")
    assert len(str(caught.value)) < 300


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise UnicodeError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("POSITION"), r"x\.glb: not a readable shape \(.*POSITION"),
        (UnprintableError(), r"x\.glb: not a readable shape \(UnprintableError\)"),
        (RecursionError(), r"x\.glb: not a readable shape \(RecursionError\)"),
        (ValueError("x.glb: has no points"), r"^x\.glb: has no points$"),
        (ValueError("first\nsecond"), r"\(first\)"),
        (ValueError("9" * 1000), r"\(9{500}\)"),
        (FileNotFoundError("texture.png"), r"x\.glb: .*texture\.png"),
    ],
)
def test_errors_of_parsers_become_one_line_that_names_the_file(
    error: Exception, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught, wrap_read_errors("x.glb", "shape"):
        raise error
    assert len(str(caught.value).splitlines()) == 1


def test_missing_files_stay_missing_files() -> None:
    with pytest.raises(FileNotFoundError), wrap_read_errors("x.glb", "shape"):
        raise FileNotFoundError("x.glb: not found")
    with pytest.raises(KeyboardInterrupt), wrap_read_errors("x.glb", "shape"):
        raise KeyboardInterrupt


def test_single_numbers_are_taken_out_of_arrays() -> None:
    for value in (3, np.int64(3), np.array([3]), np.array([[3.0]])):
        assert to_scalar(value) == 3
    for strange in ([3], "3", None, np.array([3, 4]), np.array(["3"])):
        with pytest.raises(ValueError, match="number"):
            to_scalar(strange)
