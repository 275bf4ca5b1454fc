from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.furniture import Furniture, FurnitureDataModule, asset_path
from recon.data.datasets.furniture_parts import FurnitureParts, FurniturePartsDataModule
from recon.teachers.cached import read_cache


def test_splits_are_what_the_data_card_says() -> None:
    train, test, rest = (Furniture([name]) for name in ("train", "test", "unlabelled"))
    assert (len(train), len(test), len(rest)) == (269, 141, 404)
    assert len(Furniture()) == 673
    assert len(train.classes) == 26
    assert set(train.labels) == set(test.labels) == set(range(26))
    assert set(rest.labels) == {-1}
    assert not set(test.families) & (set(train.families) | set(rest.families))
    assert not set(test.ids) & set(Furniture().ids)


def test_clouds_are_centred_and_fill_the_unit_sphere() -> None:
    data = Furniture(["test"])
    for row in range(0, len(data), 20):
        points = data.points(row)
        assert points.shape == (2048, 3)
        assert points.dtype == np.float32
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-3)
        assert data.cloud(row).colors.shape == (2048, 3)
        assert data.image(row).size == (112, 112)


def test_teacher_features_cover_pretraining_and_class_names_but_no_test_shape() -> None:
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


def test_everything_embedded_fits_its_budget_and_is_attributed() -> None:
    files = list(asset_path("furniture.npz").parent.iterdir())
    assert sum(file.stat().st_size for file in files) <= 20_000_000
    attributed = asset_path("ATTRIBUTION.txt").read_text()
    assert all(f"{shape}\t" in attributed for shape in Furniture().ids)


def test_unused_shapes_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="no split .'unused'.: choose among train, test"):
        Furniture(["unused"])


def test_another_copy_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    whole = asset_path("furniture.npz").read_bytes()
    path = tmp_path / "furniture.npz"
    with pytest.raises(FileNotFoundError, match=r"furniture.npz: not found: .*data.root"):
        Furniture(root=tmp_path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 5000] = bytes(5000)
    for content in (whole[:100_000], b"", bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"furniture.npz: corrupt \("):
            Furniture(root=tmp_path)
    path.write_bytes(whole)
    assert Furniture(root=tmp_path).ids == Furniture().ids


def test_parts_belong_to_their_objects_and_to_the_same_points() -> None:
    whole = {name: Furniture([name]) for name in ("train", "test")}
    for split, count in FurniturePartsDataModule.published_sizes.items():
        data = FurnitureParts(split)
        assert len(data) == count
        assert not set(data.ids) - set(whole[split].ids)
        for index in range(len(data)):
            cloud = data.cloud(index)
            own = data.parts[data.classes[data.labels[index]]]
            assert set(np.unique(cloud.point_labels)) <= {-1, *own}
            row = whole[split].ids.index(data.ids[index])
            assert np.array_equal(cloud.points, whole[split].points(row))
            assert (
                whole[split].classes[whole[split].labels[row]] == data.classes[data.labels[index]]
            )
    assert sorted(n for rows in data.parts.values() for n in rows) == list(range(28))


def test_a_share_of_the_data_holds_every_class_and_lies_within_larger_ones() -> None:
    shares = {}
    for fraction in (0.2, 0.5, 1.0):
        data = FurnitureDataModule(split="train", fraction=fraction)
        data.setup("fit")
        shares[fraction] = set(data.dataset.ids)
        assert len(np.unique(data.dataset.labels)) == 26
    assert shares[0.2] < shares[0.5] < shares[1.0]
    assert len(shares[0.5]) == pytest.approx(len(shares[1.0]) / 2, abs=13)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got 1.5"):
        FurnitureDataModule(split="train", fraction=1.5).setup("fit")
