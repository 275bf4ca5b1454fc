"""Layouts of rooms: the same room is read from each of them."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from recon.data.datasets.layouts.find_rooms import find_room_layout
from recon.data.datasets.s3dis import S3DISDataModule, S3DISRooms

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(size=(300, 3)).astype(np.float32) * 3
COLORS = RNG.integers(0, 256, (300, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 13, 300)
NORMALS = np.tile(np.float32([0, 0, 1]), (300, 1))
LABELS[:5] = -1


def write_table(root: Path) -> None:
    root.mkdir()
    np.save(root / "Area_1_office_1.npy", np.c_[POINTS, COLORS, LABELS])


def write_nested_table(root: Path) -> None:
    (root / "Area_1").mkdir(parents=True)
    np.save(root / "Area_1" / "office_1.npy", np.c_[POINTS, COLORS, LABELS].astype(np.float32))


def write_mmdetection3d(root: Path) -> None:
    root.mkdir()
    np.save(root / "Area_1_office_1_point.npy", np.c_[POINTS, COLORS].astype(np.float32))
    np.save(root / "Area_1_office_1_sem_label.npy", LABELS)
    np.save(root / "Area_1_office_1_ins_label.npy", LABELS)


def write_pointcept(root: Path) -> None:
    folder = root / "Area_1" / "office_1"
    folder.mkdir(parents=True)
    fields = {"coord": POINTS, "color": COLORS, "normal": NORMALS, "segment": LABELS[:, None]}
    for name, array in fields.items():
        np.save(folder / f"{name}.npy", array)


def write_old_pointcept(root: Path) -> None:
    (root / "Area_1").mkdir(parents=True)
    content = {"coord": POINTS, "color": COLORS, "semantic_gt": LABELS[:, None]}
    torch.save(content, root / "Area_1" / "office_1.pth")


WRITERS = [
    write_table, write_nested_table, write_mmdetection3d, write_pointcept, write_old_pointcept,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("folder", [".", "stanford_indoor3d"])
def test_layouts_give_the_same_room(
    write: Callable[[Path], None], folder: str, tmp_path: Path
) -> None:
    write(tmp_path / "s3dis" if folder == "." else tmp_path / folder)
    rooms = S3DISRooms(tmp_path / "s3dis" if folder == "." else tmp_path, "Area_1")
    assert list(rooms.ids) == ["Area_1/office_1"]
    room = rooms.cloud(0)
    assert np.array_equal(room.points, POINTS)
    assert np.array_equal(room.colors, COLORS)
    assert room.colors.dtype == np.uint8
    assert np.array_equal(room.point_labels, LABELS)
    assert (room.normals is not None) == (write is write_pointcept)
    assert all(path.is_file() for path in rooms.file_paths(0))


def test_labels_are_reordered_and_255_is_unlabeled(tmp_path: Path) -> None:
    write_table(tmp_path / "s3dis")
    labels = np.where(LABELS < 0, 255, LABELS)
    np.save(tmp_path / "s3dis" / "Area_1_office_1.npy", np.c_[POINTS, labels])
    rooms = S3DISRooms(tmp_path, "Area_1", order="kpconv")
    room = rooms.cloud(0)
    assert room.colors is None
    table, chair = rooms.point_classes.index("table"), rooms.point_classes.index("chair")
    assert (table, chair) == (8, 7)
    assert np.array_equal(room.point_labels == table, LABELS == 7)
    assert np.array_equal(room.point_labels == chair, LABELS == 8)
    assert np.array_equal(room.point_labels == -1, LABELS == -1)


def test_colors_in_the_unit_range_stay_fractions(tmp_path: Path) -> None:
    (tmp_path / "Area_1").mkdir()
    np.save(tmp_path / "Area_1" / "a.npy", np.c_[POINTS, COLORS / 255, LABELS])
    colors = S3DISRooms(tmp_path, "Area_1").cloud(0).colors
    assert np.allclose(colors, COLORS / 255)


def test_labels_of_ones_own_are_numbers_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "Area_1").mkdir()
    np.save(tmp_path / "Area_1" / "a.npy", np.c_[POINTS, LABELS])
    with pytest.raises(ValueError, match=r"a.npy: label \d+ is none of the 2 classes 0 to 1"):
        S3DISRooms(tmp_path, "Area_1", classes=["ground", "tree"]).cloud(0)
    np.save(tmp_path / "Area_1" / "a.npy", np.c_[POINTS, LABELS + 1])
    with pytest.raises(ValueError, match=r"label 13 is none of the 13 .* lists those"):
        S3DISRooms(tmp_path, "Area_1").cloud(0)
    np.save(tmp_path / "Area_1" / "a.npy", np.c_[POINTS, LABELS % 2])
    rooms = S3DISRooms(tmp_path, "Area_1", classes=["a", "b"], ignored_classes=["b"])
    assert set(rooms.cloud(0).point_labels.tolist()) == {0, -1}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("office_1.npy", r"rename office_1.npy to Area_1_office_1.npy, and the rooms to test on"),
        ("train/office_1.npy", r"must be named Area_<name>: rename train to Area_train"),
        ("train/office_1/coord.npy", r"must be named Area_<name>: rename train to Area_train"),
    ],
)
def test_rooms_that_are_not_in_areas_are_named_with_a_cure(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / name, np.c_[POINTS, COLORS, LABELS])
    with pytest.raises(ValueError, match=message):
        S3DISRooms(tmp_path, "Area_1")


def test_a_wrong_label_names_the_file_of_the_labels(tmp_path: Path) -> None:
    (tmp_path / "Area_1" / "a").mkdir(parents=True)
    np.save(tmp_path / "Area_1" / "a" / "coord.npy", POINTS)
    np.save(tmp_path / "Area_1" / "a" / "segment.npy", LABELS + 20)
    with pytest.raises(ValueError, match=r"segment.npy: label \d+ is none of the 13"):
        S3DISRooms(tmp_path, "Area_1").cloud(0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.c_[POINTS, COLORS], r"a.npy: has shape \(300, 6\), expected \(N, 7\)"),
        (np.c_[POINTS, COLORS, LABELS + 0.5], r"a.npy: label -?\d+.5 .* is not the number"),
        (np.c_[POINTS, COLORS * 300.0, LABELS], r"a.npy: its colors are in"),
    ],
)
def test_bad_tables_raise_errors_when_they_are_read(
    table: np.ndarray, message: str, tmp_path: Path
) -> None:
    (tmp_path / "Area_1").mkdir()
    np.save(tmp_path / "Area_1" / "a.npy", table)
    data = S3DISDataModule(tmp_path, split=["Area_1"], test_split=None)
    data.setup("fit")  # only counts points
    with pytest.raises(ValueError, match=message):
        data.train_dataloader()


def test_rooms_without_labels_or_colors_say_so(tmp_path: Path) -> None:
    write_pointcept(tmp_path)
    folder = tmp_path / "Area_1" / "office_1"
    (folder / "color.npy").unlink()
    options = {"split": ["Area_1"], "test_split": None, "min_points": 1}
    data = S3DISDataModule(tmp_path, channels=6, **options)
    data.setup("fit")
    with pytest.raises(ValueError, match="office_1.* has no colors: set channels=3"):
        next(iter(data.train_dataloader()))
    np.save(folder / "segment.npy", np.full(300, -1))
    with pytest.raises(ValueError, match="no point of the rooms has a label"):
        _ = S3DISDataModule(tmp_path, **options).train_dataset().label_counts
    (folder / "segment.npy").unlink()
    with pytest.raises(ValueError, match=r"segment.npy: has no labels"):
        S3DISRooms(tmp_path, "Area_1").cloud(0)


def test_unknown_layouts_list_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)Area_1_<room>.npy.*coord.npy"):
        find_room_layout(tmp_path)


def write_blocks(root: Path, rooms: list[str]) -> list[np.ndarray]:
    """Write two blocks in each of two files, as PointNet does; return points of each block."""
    extents, clouds = {"Area_1_office_1": [4.0, 6, 3], "Area_2_hall_1": [2.0, 9, 3]}, []
    root.mkdir()
    for number in range(2):
        with h5py.File(root / f"ply_data_all_{number}.h5", "w") as file:
            tables = []
            for room in rooms[2 * number : 2 * number + 2]:
                points = RNG.uniform(size=(40, 3)) + [len(clouds), 1, 0]
                local = points - [len(clouds) + 0.5, 1.5, 0]
                colors = np.full((40, 3), 0.5)
                tables.append(np.c_[local, colors, points / extents[room]])
                clouds.append(points)
            file["data"] = np.array(tables, dtype=np.float32)
            file["label"] = np.full((2, 40), number, dtype=np.uint8)
    (root / "room_filelist.txt").write_text("\n".join(rooms))
    return clouds


def test_rooms_are_composed_of_their_blocks(tmp_path: Path) -> None:
    names = ["Area_1_office_1", "Area_1_office_1", "Area_1_office_1", "Area_2_hall_1"]
    clouds = write_blocks(tmp_path / "indoor3d_sem_seg_hdf5_data", names)
    rooms = S3DISRooms(tmp_path, "Area_1")
    assert list(rooms.ids) == ["Area_1/office_1"]
    room = rooms.cloud(0)
    assert np.allclose(room.points, np.concatenate(clouds[:3]), atol=1e-5)
    assert room.point_labels.tolist() == [0] * 80 + [1] * 40
    assert np.allclose(room.colors, 0.5)
    assert [path.name for path in rooms.file_paths(0)] == ["ply_data_all_0.h5", "ply_data_all_1.h5"]
    hall = S3DISRooms(tmp_path, "Area_2").cloud(0)
    assert np.allclose(hall.points, clouds[3], atol=1e-5)
    (tmp_path / "indoor3d_sem_seg_hdf5_data" / "room_filelist.txt").write_text("Area_1_a\n")
    with pytest.raises(ValueError, match="room_filelist.txt: lists the rooms of 1 blocks, .* 4"):
        find_room_layout(tmp_path)


def test_areas_and_rooms_are_in_natural_order(tmp_path: Path) -> None:
    for area in (10, 2, "x"):
        np.save(tmp_path / f"Area_{area}_office_1.npy", np.zeros((3, 7)))
    assert list(find_room_layout(tmp_path).rooms) == ["Area_2", "Area_10", "Area_x"]
