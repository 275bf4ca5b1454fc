"""S3DIS: rooms, class orders, areas and channels, errors."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.s3dis import CLASS_ORDERS, S3DISDataModule, S3DISRooms
from trees import write_s3dis

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
    assert rooms.file_warnings() == ["1 objects of class 'stairs' are mapped to clutter"]


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
    with pytest.raises(FileNotFoundError, match=r"Area_2: not found\. S3DIS is expected as"):
        S3DISRooms(tmp_path, "Area_2")
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
    with pytest.raises(ValueError, match="test_area must be 1 to 6, got 7"):
        S3DISDataModule(tmp_path, test_area=7)
