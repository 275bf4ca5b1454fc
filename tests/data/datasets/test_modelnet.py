"""ModelNet: text files, .dat cache, farthest point sampling, errors."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.data.datasets.hdf5.modelnet import CLASS_NAMES
from recon.data.datasets.modelnet import ModelNet, ModelNetDataModule
from recon.data.transforms import FarthestPointSample
from recon.teachers.prompts import build_prompts
from trees import MODELNET_CLASSES, write_modelnet, write_modelnet_cache


@pytest.mark.parametrize("folder", [".", "modelnet40_normal_resampled"])
def test_text_files_round_trip(tmp_path: Path, folder: str) -> None:
    tables = write_modelnet(tmp_path)
    data = ModelNet(tmp_path / folder, "train")
    assert list(data.classes) == list(MODELNET_CLASSES)
    assert len(data) == 9
    for row, name in enumerate(data.ids):
        cloud = data.cloud(row)
        assert np.array_equal(cloud.points, tables[name][:, :3].astype(np.float32))
        assert np.array_equal(cloud.normals, tables[name][:, 3:].astype(np.float32))
        assert MODELNET_CLASSES[data.labels[row]] == name.rpartition("_")[0]
    assert data.texts(3) == build_prompts("flower pot")


def test_cache_round_trip(tmp_path: Path) -> None:
    clouds = write_modelnet_cache(tmp_path)
    data = ModelNet(tmp_path, "train")
    assert data.labels.tolist() == [0, 1, 2]
    for row, table in enumerate(clouds):
        assert np.array_equal(data.cloud(row).points, table[:, :3])
        assert np.array_equal(data.cloud(row).normals, table[:, 3:])
    first = ModelNet(tmp_path, "train", num_fps_points=1024).cloud(0)
    assert np.array_equal(first.points, clouds[0][:1024, :3])


def test_num_fps_points_are_selected_by_farthest_point_sampling(tmp_path: Path) -> None:
    tables = write_modelnet(tmp_path)
    cloud = ModelNet(tmp_path, "test", num_fps_points=20).cloud(0)
    table = tables["airplane_0004"].astype(np.float32)
    points = torch.from_numpy(table[None, :, :3].copy())
    assert np.array_equal(cloud.points, FarthestPointSample(20)(points)[0].numpy())
    rows = [table[:, :3].tolist().index(point.tolist()) for point in cloud.points]
    assert np.array_equal(cloud.normals, table[rows, 3:])
    with pytest.raises(ValueError, match=r"airplane_0004.txt: has 60 points, fewer than .*=61"):
        ModelNet(tmp_path, "test", num_fps_points=61).cloud(0)


def test_modelnet10_has_its_own_splits(tmp_path: Path) -> None:
    write_modelnet(tmp_path, classes=10)
    assert len(ModelNetDataModule(tmp_path, number_of_classes=10).open_split("all")) == 12
    with pytest.raises(
        FileNotFoundError, match=r"modelnet40_shape_names.txt: not found\. ModelNet"
    ):
        ModelNet(tmp_path)
    with pytest.raises(ValueError, match="10 or 40 classes, not 20"):
        ModelNet(tmp_path, number_of_classes=20)


def test_invalid_text_files_raise_errors(tmp_path: Path) -> None:
    write_modelnet(tmp_path)
    folder = tmp_path / "modelnet40_normal_resampled"
    data = ModelNet(tmp_path, "train")
    path = folder / "airplane" / "airplane_0001.txt"
    for content, message in (("", "is empty"), ("1,2,3,4\n", "has 4 columns, expected 3 or 6"),
                             ("1,2,nan,0,0,1\n", "1 of 1 points are NaN"),
                             ("1,2,3,0,inf,1\n", r"\(normals\): 1 of 1")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"airplane_0001.txt.*{message}"):
            data.cloud(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"airplane_0001.txt: not found"):
        data.cloud(0)
    (folder / "modelnet40_train.txt").write_text("spaceship_0001")
    with pytest.raises(ValueError, match=r"modelnet40_train.txt: 'spaceship_0001' belongs to none"):
        ModelNet(tmp_path)


def test_invalid_caches_raise_value_error(tmp_path: Path) -> None:
    clouds = write_modelnet_cache(tmp_path)
    path = tmp_path / "modelnet40_normal_resampled" / "modelnet40_train_8192pts_fps.dat"
    labels = [np.array([0])] * 3
    for content, message in (
        ([clouds, labels[:2]], "does not contain a list of clouds"),
        ("text", "does not contain a list of clouds"),
        ([1, 2], "does not contain a list of clouds"),
        ([[], []], "does not contain a list of clouds"),
        ([clouds, [[0, 1], 0, 0]], "not a readable list of labels"),
        ([clouds, [np.array([40])] * 3], "label 40"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=rf"fps\.dat: .*{message}"):
            ModelNet(tmp_path)
    path.write_bytes(b"(" * 2000 + b"t" * 2000 + b".")  # nested too deeply to be printed
    with pytest.raises(ValueError, match=r"fps\.dat: does not contain a list of clouds"):
        ModelNet(tmp_path)
    path.write_bytes(pickle.dumps([["not a cloud"] * 3, labels]))
    with pytest.raises(ValueError, match=r"fps\.dat \(train-0\): contains a str"):
        ModelNet(tmp_path).cloud(0)


def test_caches_of_other_sizes_need_no_list_of_classes(tmp_path: Path) -> None:
    clouds = write_modelnet_cache(tmp_path)
    folder = tmp_path / "modelnet40_normal_resampled"
    (folder / "modelnet40_shape_names.txt").unlink()
    (folder / "modelnet40_train_8192pts_fps.dat").rename(
        folder / "modelnet40_train_2048pts_fps.dat"
    )
    data = ModelNet(tmp_path, "train", num_fps_points=16)
    assert list(data.classes) == list(CLASS_NAMES[40])
    assert np.array_equal(data.cloud(1).points, clouds[1][:16, :3])
