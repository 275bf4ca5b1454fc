"""S3DIS: rooms, class orders, areas and channels, errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.data.datasets.s3dis import CLASS_ORDERS, S3DISDataModule, S3DISRooms
from trees import write_own_rooms, write_s3dis

CLASSES = ("ceiling", "chair", "chair", "floor", "clutter")


@pytest.mark.parametrize("order", CLASS_ORDERS)
def test_rooms_round_trip(order: str, tmp_path: Path) -> None:
    tables = write_s3dis(tmp_path / "Stanford3dDataset_v1.2_Aligned_Version")
    rooms = S3DISRooms(tmp_path, "Area_1", order=order)
    assert list(rooms.ids) == ["Area_1/office_1"]
    room = rooms.cloud(0)
    raw = np.concatenate([table for path, table in tables.items() if path.startswith("Area_1")])
    assert np.array_equal(room.points, raw[:, :3].astype(np.float32))
    assert np.array_equal(room.colors, raw[:, 3:])
    expected = np.repeat([CLASS_ORDERS[order].index(name) for name in CLASSES], 1500)
    assert np.array_equal(room.point_labels, expected)
    (warning,) = rooms.file_warnings()
    assert warning.startswith("2 objects of class 'stairs' are labeled clutter")


def test_both_orders_have_the_same_classes() -> None:
    assert set(CLASS_ORDERS["pointnet"]) == set(CLASS_ORDERS["kpconv"])
    assert len(CLASS_ORDERS["pointnet"]) == 13


def test_the_known_invalid_byte_is_a_separator(tmp_path: Path) -> None:
    tables = write_s3dis(tmp_path, (5,))
    name = "Area_5/office_1/Annotations/ceiling_1.txt"
    path = tmp_path / name
    lines = path.read_bytes().split(b"\n")
    x, y, z, r, g, b = lines[7].split()
    lines[7] = b" ".join((x, y, z, r)) + b"\x10" + g + b" " + b
    path.write_bytes(b"\n".join(lines))
    (path.parent / ".DS_Store").write_bytes(b"\0")
    room = S3DISRooms(tmp_path, "Area_5").cloud(0)
    assert room.colors[7].tolist() == tables[name][7, 3:].tolist()


def test_invalid_rooms_raise_errors(tmp_path: Path) -> None:
    write_s3dis(tmp_path, (1,))
    path = tmp_path / "Area_1" / "office_1" / "Annotations" / "chair_1.txt"
    for content, message in (("", "is empty"), ("1 2 3\n", "has 3 columns, expected 6"),
                             ("1 2 nan 0 0 0\n", "1 of 1 points are NaN"),
                             ("1 2 3 0 256 0\n", r"colors outside \[0, 255\]")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"chair_1.txt: .*{message}"):
            S3DISRooms(tmp_path, "Area_1").cloud(0)
    with pytest.raises(FileNotFoundError, match="has no Area_2, only Area_1: .* data.test_area"):
        S3DISRooms(tmp_path, "Area_2")
    with pytest.raises(FileNotFoundError, match=r"Area_1: not found\. S3DIS is expected as"):
        S3DISRooms(tmp_path / "Area_1", "Area_1")
    with pytest.raises(ValueError, match="no class order 'x': choose pointnet, kpconv"):
        S3DISRooms(tmp_path, "Area_1", order="x")
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"office_1: has no annotated objects"):
        S3DISRooms(tmp_path, "Area_1").cloud(0)


@pytest.mark.parametrize(
    ("channels", "fields"), [(3, []), (6, ["colors"]), (9, ["colors", "location"])]
)
def test_test_area_and_channels(channels: int, fields: list[str], tmp_path: Path) -> None:
    write_s3dis(tmp_path, (1, 2, 3, 4, 5, 6), points=300)
    data = S3DISDataModule(
        tmp_path, test_area=3, channels=channels, num_points=256, min_points=64, batch_size=2
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert {"colors", "location"} & set(batch) == set(fields)
    assert batch["points"].shape == (2, 256, 3)
    assert batch["point_labels"].shape == (2, 256)
    assert {name.split("/")[0] for name in data.dataset.ids} == {
        f"Area_{i}" for i in (1, 2, 4, 5, 6)
    }
    assert list(data.test_dataset.ids) == ["Area_3/office_1"]
    room = next(iter(data.test_dataloader()))
    assert room["points"].shape == (1, 1500, 3)
    with pytest.raises(ValueError, match="channels must be 3, 6 or 9, got 4"):
        S3DISDataModule(tmp_path, channels=4)
    with pytest.raises(ValueError, match=r"has Area_1, .*Area_6, not the test area Area_7"):
        S3DISDataModule(tmp_path, test_area=7).setup("fit")


def read_classes(data: S3DISDataModule) -> list[str]:
    """The classes of the points at heights 0, 1 and 2 of the first test room."""
    room = data.test_dataset.cloud(0)
    heights = room.points[:, 2].astype(int)
    names = [*data.test_dataset.point_classes, "unlabeled"]
    return [
        "/".join({names[label] for label in room.point_labels[heights == h].tolist()})
        for h in range(3)
    ]


def open_own(root: Path, **options: Any) -> S3DISDataModule:
    data = S3DISDataModule(root, test_area="x", num_points=64, min_points=16, **options)
    data.setup()
    return data


def test_classes_of_ones_own_come_from_the_option_the_list_or_the_files(tmp_path: Path) -> None:
    root = write_own_rooms(tmp_path)
    with pytest.warns(UserWarning, match=r"data.classes=\[car,ground,street_tree\] fixes"):
        data = open_own(root)
    assert list(data.dataset.point_classes) == ["car", "ground", "street_tree"]
    assert read_classes(data) == ["ground", "street_tree", "car"]
    listed = ["ground", "street_tree", "car"]
    data = open_own(root, classes=listed)
    assert data.settings()["classes"] == list(data.dataset.point_classes) == listed
    assert read_classes(data) == listed
    data = open_own(root, classes=["car", "ground"], ignored_classes=["street_tree"])
    assert read_classes(data) == ["ground", "unlabeled", "car"]
    assert data.dataset.label_counts.tolist() == [400, 400]
    (root / "classes.txt").write_text("car\nstreet_tree\nground\n")
    assert open_own(root).settings()["classes"] == ["car", "street_tree", "ground"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes": ["ground", "tree", "car"]},
            r"'street_tree' \(2\).* correct tree to",
        ),
        ({"classes": ["ground", "car"]}, r"data.ignored_classes=\[street_tree\]"),
        ({"classes": ["ground", "ground"]}, "must list different names"),
        ({"classes": ["car"], "order": "kpconv"}, "set one of them"),
        ({"ignored_classes": ["x"]}, r"ignored_classes=\['x'\]: none of the classes car, ground"),
    ],
)
def test_wrong_lists_of_classes_raise_value_error(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        open_own(write_own_rooms(tmp_path), **options)


def test_a_few_other_names_are_clutter_with_a_warning(tmp_path: Path) -> None:
    write_s3dis(tmp_path, points=100)
    data = S3DISDataModule(tmp_path, num_points=16, min_points=4)
    with (
        pytest.warns(UserWarning, match="2 objects of class 'stairs' are labeled clutter"),
        pytest.warns(UserWarning, match="training on Area_1, testing on Area_5"),
    ):
        data.setup()
    assert len(data.dataset.point_classes) == 13


def test_a_fraction_of_the_blocks_keeps_the_numbers_of_points_of_classes(tmp_path: Path) -> None:
    write_own_rooms(tmp_path)
    data = open_own(tmp_path, classes=["ground", "street_tree", "car"], fraction=0.5)
    assert data.dataset.label_counts.tolist() == [400, 400, 400]
    assert data.test_dataset.label_counts is None


def test_errors_about_areas_name_the_option(tmp_path: Path) -> None:
    root = write_own_rooms(tmp_path, ("Area_1", "Area_2"))
    with pytest.raises(ValueError, match=r"has Area_1, Area_2, not .* Area_5: .* data.test_area=2"):
        S3DISDataModule(root).setup("fit")
    data = S3DISDataModule(root, test_area=2, classes=["ground", "street_tree", "car"])
    data.setup()
    assert [*data.dataset.ids][0].startswith("Area_1/plot_1#")
    assert list(data.test_dataset.ids) == ["Area_2/plot_1"]
    one = write_own_rooms(tmp_path / "one", ("Area_2",))
    with pytest.raises(ValueError, match="only the test area Area_2"):
        S3DISDataModule(one, test_area=2).setup("fit")
    with pytest.raises(ValueError, match="rename north to Area_north"):
        S3DISDataModule(write_own_rooms(tmp_path / "own", ("north",)), test_split=None).setup("fit")
