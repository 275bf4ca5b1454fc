"""ModelNet as HDF5 files: lists of files, names of shapes and classes, errors."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from recon.data.datasets.hdf5.modelnet import CLASS_NAMES
from recon.data.datasets.modelnet import ModelNet, ModelNetDataModule
from recon.data.transforms import FarthestPointSample
from trees import write_modelnet, write_modelnet_hdf5

FOLDER = "modelnet40_ply_hdf5_2048"


@pytest.mark.parametrize("root", [".", FOLDER])
@pytest.mark.parametrize("prefix", [None, "", "data/modelnet40_ply_hdf5_2048/"])
def test_hdf5_files_round_trip(prefix: str | None, root: str, tmp_path: Path) -> None:
    tables = write_modelnet_hdf5(tmp_path / FOLDER)
    if prefix is not None:
        lines = [f"{prefix}ply_data_train{number}.h5\n" for number in (0, 1)]
        (tmp_path / FOLDER / "train_files.txt").write_text("".join(lines))
    data = ModelNet(tmp_path / root, "train")
    assert list(data.classes) == list(CLASS_NAMES[40])
    assert data.labels.tolist() == list(range(7))
    assert data.ids == [f"train-{row}" for row in range(7)]
    for row, table in enumerate(tables):
        assert np.array_equal(data.cloud(row).points, table[:, :3])
        assert np.array_equal(data.cloud(row).normals, table[:, 3:])
    assert data.file_paths(6) == [tmp_path / FOLDER / "ply_data_train1.h5"]
    sampled = ModelNet(tmp_path, "train", num_fps_points=8).cloud(5).points
    expected = FarthestPointSample(8)(torch.from_numpy(tables[5][None, :, :3].copy()))
    assert np.array_equal(sampled, expected[0].numpy())


def test_files_without_a_list_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    tables = write_modelnet_hdf5(tmp_path, (1,) * 12)
    (tmp_path / "training_objectdataset.h5").write_bytes(b"another data set")
    data = ModelNet(tmp_path, "train")
    assert np.array_equal(data.cloud(10).points, tables[10][:, :3])


def test_names_of_shapes_and_classes_are_read(tmp_path: Path) -> None:
    write_modelnet_hdf5(tmp_path / "modelnet10_hdf5_2048", (2,))
    folder = tmp_path / "modelnet10_hdf5_2048"
    names = [*reversed(CLASS_NAMES[10])]
    (folder / "shape_names.txt").write_text("\n".join(names))
    listing = folder / "ply_data_train_0_id2file.json"
    listing.write_text(json.dumps(["toilet/toilet_0001.ply", "table/table_0002.ply"]))
    data = ModelNet(tmp_path, number_of_classes=10)
    assert data.ids == ["toilet_0001", "table_0002"]
    assert [data.classes[label] for label in data.labels] == ["toilet", "table"]
    listing.write_text('["toilet/toilet_0001.ply"]')
    with pytest.raises(ValueError, match=r"id2file\.json: .*1 different names for 2 shapes"):
        ModelNet(tmp_path, number_of_classes=10)


def test_too_few_class_names_give_a_warning(tmp_path: Path) -> None:
    write_modelnet_hdf5(tmp_path)
    (tmp_path / "shape_names.txt").write_text("airplane\n")
    with pytest.warns(UserWarning, match=r"shape_names\.txt: lists 1 different class.* not 40"):
        assert list(ModelNet(tmp_path).classes) == list(CLASS_NAMES[40])
    (tmp_path / "shape_names.txt").write_text("\n".join(CLASS_NAMES[10]))
    with pytest.raises(ValueError, match=r"lists 10 classes, not 40: set data=modelnet10"):
        ModelNet(tmp_path)


def test_text_files_come_first_and_sizes_follow_the_copy(tmp_path: Path) -> None:
    write_modelnet_hdf5(tmp_path / FOLDER)
    assert ModelNetDataModule(tmp_path).published_sizes["train"] == 9_840
    write_modelnet(tmp_path)
    assert ModelNetDataModule(tmp_path).published_sizes["train"] == 9_843
    assert ModelNet(tmp_path).ids[0] == "airplane_0001"


def test_invalid_hdf5_files_are_named(tmp_path: Path) -> None:
    write_modelnet_hdf5(tmp_path, (2,))
    with pytest.raises(FileNotFoundError, match=r"ply_data_test0\.h5: not found: copy"):
        ModelNet(tmp_path, "test")
    path = tmp_path / "ply_data_train0.h5"
    points = np.zeros((2, 8, 3))
    for fields, message in (
        ({"data": points}, "no data set `label`"),
        ({"data": points, "label": [0, 40]}, "label 40"),
        ({"data": points[0], "label": [0]}, r"expected \(n, 2048, 3\)"),
        ({"data": points, "normal": points[:1], "label": [0, 1]}, "`normal` has shape"),
        ({"data": points, "label": [0, 1], "pid": [0, 1]}, "it is of ShapeNetPart"),
        ({"data": points[:0], "label": np.zeros(0)}, "has no shape"),
    ):
        with h5py.File(path, "w") as file:
            for key, value in fields.items():
                file[key] = value
        with pytest.raises(ValueError, match=message):
            ModelNet(tmp_path)
    (tmp_path / "train_files.txt").write_text("ply_data_train7.h5")
    with pytest.raises(FileNotFoundError, match=r"ply_data_train7\.h5: not found"):
        ModelNet(tmp_path)
