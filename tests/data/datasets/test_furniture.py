"""Bundled data set: splits, clouds, parts, teacher features."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.furniture import Furniture, FurnitureDataModule, asset_path
from recon.data.datasets.furniture_parts import FurnitureParts, FurniturePartsDataModule
from recon.teachers.cached import read_cache


def test_splits_match_the_documentation() -> None:
    train, test, unlabeled = (Furniture([name]) for name in ("train", "test", "unlabelled"))
    assert (len(train), len(test), len(unlabeled)) == (269, 141, 404)
    assert len(Furniture()) == 673
    assert len(train.classes) == 26
    assert set(train.labels) == set(test.labels) == set(range(26))
    assert set(unlabeled.labels) == {-1}
    assert not set(test.families) & (set(train.families) | set(unlabeled.families))
    assert not set(test.ids) & set(Furniture().ids)


def test_clouds_are_centered_and_fill_the_unit_sphere() -> None:
    data = Furniture(["test"])
    for row in range(0, len(data), 20):
        points = data.points(row)
        assert points.shape == (2048, 3)
        assert points.dtype == np.float32
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-3)
        assert data.cloud(row).colors.shape == (2048, 3)
        assert data.image(row).size == (112, 112)


def test_teacher_features_cover_pretraining_shapes_and_class_names_only() -> None:
    data = Furniture()
    images, texts = (
        read_cache(asset_path("image.safetensors")),
        read_cache(asset_path("text.safetensors")),
    )
    assert set(images.names) == set(data.ids)
    assert {data.texts(row)[0] for row in range(len(data))} <= set(texts.names)
    assert set(data.classes) <= set(texts.names)
    assert images.features.shape[1:] == (1, 1280)
    assert texts.features.shape[1:] == (1, 384)


def test_bundled_files_fit_the_size_limit_and_are_attributed() -> None:
    files = list(asset_path("furniture.npz").parent.iterdir())
    assert sum(file.stat().st_size for file in files) <= 20_000_000
    attribution = asset_path("ATTRIBUTION.txt").read_text()
    assert all(f"{shape}\t" in attribution for shape in Furniture().ids)


def test_unused_split_cannot_be_opened() -> None:
    with pytest.raises(ValueError, match="no split .'unused'.: choose among train, test"):
        Furniture(["unused"])


def test_other_copies_are_read_and_corrupt_ones_raise_value_error(tmp_path: Path) -> None:
    original = asset_path("furniture.npz").read_bytes()
    path = tmp_path / "furniture.npz"
    with pytest.raises(FileNotFoundError, match=r"furniture.npz: not found: .*data.root"):
        Furniture(root=tmp_path)
    damaged = bytearray(original)
    damaged[len(original) // 2 : len(original) // 2 + 5000] = bytes(5000)
    for content in (original[:100_000], b"", bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"furniture.npz: corrupt \("):
            Furniture(root=tmp_path)
    path.write_bytes(original)
    assert Furniture(root=tmp_path).ids == Furniture().ids


def test_parts_match_their_class_and_points() -> None:
    furniture = {name: Furniture([name]) for name in ("train", "test")}
    for split, count in FurniturePartsDataModule.published_sizes.items():
        data = FurnitureParts(split)
        assert len(data) == count
        assert not set(data.ids) - set(furniture[split].ids)
        for index in range(len(data)):
            cloud = data.cloud(index)
            class_parts = data.parts[data.classes[data.labels[index]]]
            assert set(np.unique(cloud.point_labels)) <= {-1, *class_parts}
            row = furniture[split].ids.index(data.ids[index])
            assert np.array_equal(cloud.points, furniture[split].points(row))
            label = furniture[split].labels[row]
            assert furniture[split].classes[label] == data.classes[data.labels[index]]
    assert sorted(part for parts in data.parts.values() for part in parts) == list(range(28))


def test_subsets_have_all_classes_and_are_nested() -> None:
    ids_by_fraction = {}
    for fraction in (0.2, 0.5, 1.0):
        data = FurnitureDataModule(split="train", fraction=fraction)
        data.setup("fit")
        ids_by_fraction[fraction] = set(data.dataset.ids)
        assert len(np.unique(data.dataset.labels)) == 26
    assert ids_by_fraction[0.2] < ids_by_fraction[0.5] < ids_by_fraction[1.0]
    assert len(ids_by_fraction[0.5]) == pytest.approx(len(ids_by_fraction[1.0]) / 2, abs=13)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 1.5"):
        FurnitureDataModule(split="train", fraction=1.5).setup("fit")


def test_classes_select_furniture_with_their_parts() -> None:
    data = FurniturePartsDataModule(classes=["table", "lamp"])
    shapes, everything = data.open_split("test"), FurnitureParts("test")
    assert shapes.classes == ["table", "lamp"]
    assert {name.split("/")[0] for name in shapes.point_classes} == {"table", "lamp"}
    row = everything.ids.index(shapes.ids[0])
    one, other = shapes.cloud(0).point_labels, everything.cloud(row).point_labels
    assert np.array_equal(one < 0, other < 0)
    labeled = one >= 0
    assert [shapes.point_classes[part] for part in one[labeled]] == [
        everything.point_classes[part] for part in other[labeled]
    ]
