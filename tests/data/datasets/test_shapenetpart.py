"""ShapeNetPart: splits, part labels, errors."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from recon.data.datasets.shapenetpart import CLASS_TO_PARTS, ShapeNetPart, ShapeNetPartDataModule
from trees import write_own_shapes, write_shapenetpart, write_table


def test_files_round_trip(tmp_path: Path) -> None:
    tables = write_shapenetpart(tmp_path)
    for split in ("train", "val", "test"):
        data = ShapeNetPart(tmp_path, split)
        assert data.labels.tolist() == [0, 0, 1]
        for row, name in enumerate(data.ids):
            cloud = data.cloud(row)
            assert np.array_equal(cloud.points, tables[name][:, :3].astype(np.float32))
            assert np.array_equal(cloud.normals, tables[name][:, 3:6].astype(np.float32))
            assert np.array_equal(cloud.point_labels, tables[name][:, 6])
    assert data.parts == {"Airplane": [0, 1, 2, 3], "Table": [47, 48, 49]}
    assert len(data.point_classes) == 50


def test_each_part_belongs_to_one_class() -> None:
    assert sorted(part for parts in CLASS_TO_PARTS.values() for part in parts) == list(range(50))


def test_batches_have_2048_points_with_labels(tmp_path: Path) -> None:
    tables = write_shapenetpart(tmp_path)
    data = ShapeNetPartDataModule(tmp_path, keys=["point_labels", "label"], batch_size=6)
    data.setup()
    assert len(data.dataset) == 6
    assert data.has_published_classes()
    assert len(data.test_dataset) == 3
    batch = next(iter(data.train_dataloader()))
    assert batch["points"].shape == (6, 2048, 3)
    for name, points, labels in zip(
        batch["id"], batch["points"], batch["point_labels"], strict=True
    ):
        table = {tuple(row[:3]): row[6] for row in tables[name].astype(np.float32).tolist()}
        assert [table[tuple(point)] for point in points.tolist()] == labels.tolist()


def test_invalid_files_raise_value_error(tmp_path: Path) -> None:
    tables = write_shapenetpart(tmp_path)
    folder = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    data = ShapeNetPart(tmp_path)
    foreign = tables[data.ids[0]].copy()
    foreign[3, 6] = 48
    write_table(folder / f"{data.ids[0]}.txt", foreign)
    with pytest.raises(
        ValueError, match=r"train0.txt: 1 points have the parts \[48\], but the class Airplane has"
    ):
        data.cloud(0)
    foreign[3, 6] = 50
    write_table(folder / f"{data.ids[0]}.txt", foreign)
    with pytest.raises(ValueError, match=r"train0.txt: 1 points have the parts \[50\]"):
        data.cloud(0)
    split_path = folder / "train_test_split" / "shuffled_train_file_list.json"
    for names, message in (
        (["shape_data/999/x"], "belongs to none of the 2"),
        ({"a": 1}, "not a list"),
        (["shape_data/02691156/../../x"], "not a path inside"),
    ):
        split_path.write_text(json.dumps(names))
        with pytest.raises(ValueError, match=rf"shuffled_train_file_list.json: .*{message}"):
            ShapeNetPart(tmp_path)
    (folder / "synsetoffset2category.txt").write_text("Spaceship 999\n")
    split_path.write_text(json.dumps(["shape_data/999/x"]))
    with pytest.raises(ValueError, match=r'Spaceship has no parts: .*parts.json, {"Spaceship": '):
        ShapeNetPart(tmp_path)


def test_classes_select_shapes_and_their_parts(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path)
    data = ShapeNetPartDataModule(tmp_path, classes=["Table"], keys=["point_labels", "label"])
    data.setup()
    assert data.dataset.classes == ["Table"]
    assert data.dataset.point_classes == ["Table 47", "Table 48", "Table 49"]
    assert data.dataset.parts == {"Table": [0, 1, 2]}
    assert not data.has_published_classes()
    assert len(data.dataset) == 2
    batch = next(iter(data.train_dataloader()))
    assert batch["label"].tolist() == [0, 0]
    assert batch["point_labels"].unique().tolist() == [0, 1, 2]
    both = ShapeNetPartDataModule(tmp_path, classes=["Table", "Airplane"]).open_split("test")
    all_classes = ShapeNetPart(tmp_path, "test")
    assert both.labels.tolist() == [1, 1, 0]
    expected = all_classes.cloud(0).point_labels
    names = [both.point_classes[part] for part in both.cloud(0).point_labels]
    assert names == [f"Airplane {part}" for part in expected]
    for classes, message in ((["Tabel"], "did you mean Table"), (["Table"] * 2, "different names")):
        with pytest.raises(ValueError, match=message):
            ShapeNetPartDataModule(tmp_path, classes=classes).setup("fit")


def test_shapes_of_unlisted_classes_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path)
    folder = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (folder / "synsetoffset2category.txt").write_text("Table\t04379243\n")
    data = ShapeNetPartDataModule(tmp_path, split="train")
    with pytest.warns(UserWarning, match="2 of 3 shapes are left out"):
        data.setup("fit")
    assert data.dataset.ids == ["04379243/train0"]
    (folder / "synsetoffset2category.txt").write_text("Bag\t02773838\n")
    data = ShapeNetPartDataModule(tmp_path, split="train")
    with pytest.warns(UserWarning, match="3 of 3 shapes are left out"):
        data.setup("fit")
    with pytest.raises(ValueError, match=r"no sample to train on: check data.split=train"):
        data.train_dataloader()


LISTS = {"Nut": ["thread", "head"], "Bolt": ["shaft", "head", "tip"]}
GLOBAL_IDS = {"Nut": ["thread", "head"], "Bolt": {"shaft": 2, "head": 3, "tip": 4}}


@pytest.mark.parametrize(("parts", "offset"), [(LISTS, 0), (GLOBAL_IDS, 2)])
@pytest.mark.parametrize("place", ["beside", "file", "mapping"])
def test_classes_and_parts_of_ones_own(
    parts: dict[str, Any], offset: int, place: str, tmp_path: Path
) -> None:
    root = write_own_shapes(tmp_path / "own", offset)
    path = root / "parts.json" if place == "beside" else tmp_path / "table.json"
    path.write_text(json.dumps(parts))
    option = {"beside": None, "file": str(path), "mapping": parts}[place]
    data = ShapeNetPartDataModule(root, parts=option)
    with pytest.warns(UserWarning, match="no split val: training on train alone"):
        data.setup()
    names = ["Nut/thread", "Nut/head", "Bolt/shaft", "Bolt/head", "Bolt/tip"]
    assert list(data.dataset.point_classes) == list(data.test_dataset.point_classes) == names
    assert data.dataset.classes == ["Nut", "Bolt"]
    assert data.dataset.parts == {"Nut": [0, 1], "Bolt": [2, 3, 4]}
    assert data.test_dataset.cloud(0).point_labels.tolist() == np.repeat([0, 1, -1], 10).tolist()
    assert data.test_dataset.cloud(1).point_labels.tolist() == np.repeat([2, 3, 4], 10).tolist()
    assert data.settings()["parts"]["Nut"] == {"thread": 0, "head": 1}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "must map classes to lists of parts"),
        ({"Nut": "head"}, "'Nut' has 'head', expected a list"),
        ({"Nut": ["a", "a"]}, "list of different parts"),
        ({"Nut": {"a": 0, "b": 0}}, "different labels"),
        ({"Nut": {"a": -1}}, "different labels"),
        (
            LISTS,
            r"Bolt/train.txt: 10 points have the parts \[3\], .* number the parts",
        ),
    ],
)
def test_wrong_tables_of_parts_raise_value_error(parts: Any, message: str, tmp_path: Path) -> None:
    root = write_own_shapes(tmp_path, 1)
    (root / "parts.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=message):
        ShapeNetPart(root).cloud(1)


def test_parts_of_unlisted_classes_raise_value_error(tmp_path: Path) -> None:
    root = write_own_shapes(tmp_path, 0)
    (root / "parts.json").write_text(json.dumps(LISTS | {"nuts": ["a"]}))
    (root / "synsetoffset2category.txt").write_text("Nut Nut\nBolt Bolt\n")
    with pytest.raises(ValueError, match=r"parts.json: has parts of 'nuts', .* Nut, Bolt in"):
        ShapeNetPart(root)
    with pytest.raises(ValueError, match=r"^data.parts: has parts of 'Bolts'"):
        ShapeNetPart(root, parts={"Bolts": ["a"]})


def test_version_0_counts_the_parts_of_each_class_from_1(tmp_path: Path) -> None:
    write_shapenetpart(tmp_path)
    folder = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    expected = ShapeNetPart(tmp_path).cloud(2)
    for name in ShapeNetPart(tmp_path).ids:
        synset, _, shape = name.partition("/")
        table = np.loadtxt(folder / f"{name}.txt")
        first = {"02691156": 0, "04379243": 47}[synset]
        write_table(folder / synset / "points" / f"{shape}.pts", table[:, :3])
        write_table(folder / synset / "points_label" / f"{shape}.seg", table[:, 6:] - first + 1)
    data = ShapeNetPart(tmp_path)
    cloud = data.cloud(2)
    assert np.array_equal(cloud.points, expected.points)
    assert np.array_equal(cloud.point_labels, expected.point_labels)
    assert cloud.normals is None
    assert [path.suffix for path in data.file_paths(2)] == [".pts", ".seg"]


def write_hdf5(path: Path, part_key: str = "pid", **fields: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    content = {
        "data": rng.normal(size=(3, 20, 3)).astype(np.float32),
        "label": np.array([[0], [11], [15]], dtype=np.uint8),
        part_key: np.repeat([[0], [37], [49]], 20, axis=1).astype(np.uint8),
    } | fields
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return content


@pytest.mark.parametrize("part_key", ["pid", "seg"])
def test_hdf5_files_give_all_splits(part_key: str, tmp_path: Path) -> None:
    folder = tmp_path / "shapenet_part_seg_hdf5_data"
    content = write_hdf5(folder / "ply_data_train0.h5", part_key)
    write_hdf5(folder / "ply_data_train10.h5", part_key)
    write_hdf5(folder / "ply_data_val0.h5", part_key)
    write_hdf5(folder / "ply_data_test0.h5", part_key)
    data = ShapeNetPartDataModule(tmp_path)
    data.setup()
    assert len(data.dataset) == 9
    assert len(data.test_dataset) == 3
    cloud = data.test_dataset.cloud(1)
    assert np.array_equal(cloud.points, content["data"][1])
    assert set(cloud.point_labels.tolist()) == {37}
    assert data.test_dataset.classes[data.test_dataset.labels[1]] == "Mug"
    (folder / "train_hdf5_file_list.txt").write_text("/home/x/ply_data_train0.h5\n")
    assert len(ShapeNetPartDataModule(tmp_path, split="train").open_split("train")) == 3
    mugs = ShapeNetPartDataModule(tmp_path, classes="Mug").open_split("test")
    assert mugs.point_classes == ["Mug 36", "Mug 37"]
    assert set(mugs.cloud(0).point_labels.tolist()) == {1}


def test_hdf5_files_with_other_numbers_and_classes(tmp_path: Path) -> None:
    (tmp_path / "all_object_categories.txt").write_text("Airplane\t02691156\nMug\t03797390\n")
    ids = {f"02691156_{part + 1}": part for part in range(4)}
    (tmp_path / "catid_partid_to_overallid.json").write_text(
        json.dumps(ids | {"03797390_1": 5, "03797390_2": 4})
    )
    label, parts = np.array([0, 1, 1]), np.repeat([[3], [4], [5]], 20, axis=1)
    write_hdf5(tmp_path / "train0.h5", label=label, pid=parts)
    shapes = ShapeNetPartDataModule(tmp_path).open_split("train")
    assert [int(shapes.cloud(row).point_labels[0]) for row in range(3)] == [3, 37, 36]
    (tmp_path / "parts.json").write_text(json.dumps({"Mug": {"body": 4, "handle": 5}}))
    shapes = ShapeNetPartDataModule(tmp_path).open_split("train")
    names = [shapes.point_classes[shapes.cloud(row).point_labels[0]] for row in range(3)]
    assert names == ["Airplane 3", "Mug/body", "Mug/handle"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": np.array([0, 1, 99])}, "train0.h5: label 99"),
        ({"pid": np.zeros((3, 19))}, r"train0.h5: .*the parts \(3, 19\)"),
        ({"pid": np.full((3, 20), 4)}, r"train0.h5 \(train-0\): 20 points have the parts \[4\]"),
        ({"data": np.full((3, 20, 3), np.nan)}, r"train0.h5 \(train-0\): 20 of 20 points are NaN"),
    ],
)
def test_bad_hdf5_files_raise_value_error(
    fields: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    write_hdf5(tmp_path / "train0.h5", **fields)
    with pytest.raises(ValueError, match=message):
        ShapeNetPartDataModule(tmp_path).open_split("train").cloud(0)
