"""Shapes are found by file, folder or pattern, and arrays are found by their names."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.io.shape import find_shape_files, read_shape

POINTS = np.random.default_rng(0).normal(size=(9, 3))


def test_shapes_are_found_by_file_folder_and_pattern(tmp_path: Path) -> None:
    for name in ("a/b/1.npy", "a/2.npy", "a/.hidden/3.npy", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "b" / "above").symlink_to(tmp_path / "a")
    names = find_shape_files(tmp_path / "a")
    assert sorted(map(str, names.values())) == ["2.npy", "b/1.npy"]
    file = tmp_path / "a" / "2.npy"
    assert find_shape_files(file) == {file: Path("2.npy")}
    assert find_shape_files(f"{tmp_path}/*/*.npy") == {file: Path("2.npy")}
    for pattern in (tmp_path / "none.npy", f"{tmp_path}/*.npy", tmp_path / "a" / ".hidden" / "x"):
        with pytest.raises(FileNotFoundError):
            find_shape_files(pattern)


def test_arrays_without_known_names_are_listed_in_a_short_message(tmp_path: Path) -> None:
    arrays = {f"a{number:050d}": np.zeros(1) for number in range(50)}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=r"x\.npz: has the arrays \['a0") as caught:
        read_shape(tmp_path / "x.npz")
    assert len(str(caught.value)) < 1000


def test_only_numbers_of_a_dictionary_are_considered(tmp_path: Path) -> None:
    content = {"points": POINTS, "name": "chair", "colors": np.array(["red"] * 9), "normals": None}
    np.save(tmp_path / "x.npy", np.array(content, dtype=object))
    cloud = read_shape(tmp_path / "x.npy")
    assert np.allclose(cloud.points, POINTS)
    assert cloud.colors is None
    assert cloud.normals is None


def test_a_folder_without_shapes_names_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.fbx").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"1 file is of other formats .* 1 \.fbx: .*\.ply"):
        find_shape_files(tmp_path)
    (tmp_path / "a.fbx").unlink()
    with pytest.raises(FileNotFoundError, match="no files that may be shapes"):
        find_shape_files(tmp_path)
