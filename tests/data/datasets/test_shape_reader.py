"""Options of reading files: the up axis that they declare, and what they do with NaN."""

from pathlib import Path

import laspy
import numpy as np
import pytest

from recon.data.datasets.file_list import open_shape_files
from recon.data.datasets.folder import FolderDataModule
from recon.data.datasets.shape_reader import ShapeReader
from recon.data.file_notes import summarize_notes

POINTS = np.random.default_rng(0).uniform(size=(20, 3)).round(2)


def write_las(path: Path, points: np.ndarray) -> None:
    las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
    las.header.scales = [0.01] * 3
    las.x, las.y, las.z = points.T
    las.write(path)


def test_files_that_declare_an_up_axis_are_turned_to_y(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", POINTS)
    np.save(tmp_path / "a.npy", POINTS)
    x, y, z = ShapeReader().read(tmp_path / "a.las").points.T
    np.testing.assert_allclose(np.stack([x, -z, y], 1), POINTS, atol=1e-6)
    assert np.array_equal(ShapeReader().read(tmp_path / "a.npy").points, POINTS.astype("f4"))
    for up in "xyz":
        reader = ShapeReader(up=up)
        np.testing.assert_allclose(reader.read(tmp_path / "a.las").points, POINTS, atol=1e-6)
        assert reader.cloud_up == up


def test_the_origin_is_turned_with_the_points(tmp_path: Path) -> None:
    write_las(tmp_path / "a.las", POINTS + (5e5, 6e6, 100))
    cloud = ShapeReader().read(tmp_path / "a.las")
    assert cloud.origin is not None
    x, y, z = (cloud.points + np.array(cloud.origin)).T
    np.testing.assert_allclose(np.stack([x, -z, y], 1), POINTS + (5e5, 6e6, 100), atol=0.006)


def test_non_finite_points_are_dropped_counted_and_said_or_refused(tmp_path: Path) -> None:
    points = POINTS.copy()
    points[3:6] = np.nan
    points[8, 1] = np.inf
    normals = np.tile([0.0, 0, 1], (20, 1))
    np.savez(
        tmp_path / "a.npz", points=points, normals=normals, colors=np.arange(60).reshape(20, 3)
    )
    cloud = ShapeReader().read(tmp_path / "a.npz")
    kept = np.isfinite(points).all(1)
    assert np.array_equal(cloud.points, points[kept].astype("f4"))
    assert cloud.colors is not None
    assert np.array_equal(cloud.colors[:, 0], 3 * np.flatnonzero(kept))
    assert cloud.notes == ("4 of 20 points are NaN or infinite: dropped",)
    reader = ShapeReader.from_options({"on_nan": "error"})
    with pytest.raises(ValueError, match=r"a\.npz: 4 of 20 points are NaN"):
        reader.read(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match=r"b\.npy: 5 of 5 points"):
        ShapeReader().read(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on_nan", "ignore", "on_nan must be drop or error, got 'ignore'"),
        ("up", "w", "axis must be x, y or z, got 'w'"),
        ("num_surface_points", 0, "num_surface_points must be at least 1, got 0"),
    ],
)
def test_invalid_options_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapeReader.from_options({name: value})


def test_settings_restore_a_reader_and_have_no_defaults_of_later_options() -> None:
    reader = ShapeReader.from_options({"columns": ["x", "y", "z"], "up": "Z"})
    assert reader.settings() == {"num_surface_points": 8192, "up": "z", "columns": ["x", "y", "z"]}
    assert ShapeReader.from_options(reader.settings()) == reader
    assert ShapeReader().settings() == {"num_surface_points": 8192, "up": "auto"}


def test_training_says_each_kind_of_note_once(tmp_path: Path) -> None:
    for number in range(4):
        points = np.vstack([POINTS, np.full((number + 1, 3), np.nan)])
        np.save(tmp_path / f"{number}.npy", points)
    data = FolderDataModule(tmp_path, num_points=8, batch_size=2, num_workers=0, keys=set())
    data.setup("fit")
    batches = [*data.train_dataloader()]
    with pytest.warns(UserWarning, match=r"\.npy: \d of 2\d points are NaN") as warned:
        moved = [data.on_after_batch_transfer(batch, 0) for batch in batches]
    assert not any("notes" in batch for batch in moved)
    assert len([w for w in warned if "NaN" in str(w.message)]) == 1


def test_other_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    for name in ("a.fbx", "b.fbx", "c.BLEND", "a.png", "README.txt"):
        (tmp_path / name).write_text("x")
    message = "3 files are of other formats and not read: 2 .fbx, 1 .blend"
    with pytest.warns(UserWarning, match=message):
        FolderDataModule(tmp_path).read_part("all")
    with pytest.warns(UserWarning, match=message):
        dataset = open_shape_files([str(tmp_path)] * 2, num_surface_points=8, up="auto")
    assert len(dataset) == 1


def test_notes_of_one_kind_are_one_line() -> None:
    notes = [("a", "3 of 10 points are 'x'"), ("b", "1,234 of 5,678 points are 'y'"), ("b", "z")]
    first, second = summarize_notes(notes)
    assert first == "a: 3 of 10 points are 'x' (also 1 of the other files)"
    assert second == "b: z"
