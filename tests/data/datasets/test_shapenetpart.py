"""ShapeNetPart: splits, part labels, errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.shapenetpart import CLASS_TO_PARTS, ShapeNetPart, ShapeNetPartDataModule
from trees import write_shapenetpart, write_table


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
    with pytest.raises(ValueError, match=r"train0.txt: label 50.0 .* is none of the 50"):
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
    with pytest.raises(
        ValueError, match=r"synsetoffset2category.txt: \['Spaceship'\] are not classes"
    ):
        ShapeNetPart(tmp_path)
