"""ShapeNet-55: clouds, images, category table, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.data.datasets.shapenet import SYNSETS, ShapeNet, ShapeNetDataModule
from recon.teachers.prompts import build_prompts


def test_files_round_trip(shapenet_root: Path) -> None:
    data = ShapeNet(shapenet_root, "train")
    assert data.ids[:2] == ["02691156-model0", "04379243-model0"]
    stored = np.load(shapenet_root / "shapenet_pc" / "04379243-model0.npy")
    assert np.array_equal(data.points(1), stored.astype(np.float32))
    assert data.texts(1) == build_prompts("table")
    assert [data.category(i) for i in (0, 1)] == [0, 1]
    with Image.open(shapenet_root / "shapenet_img" / "04379243-model0.png") as image:
        assert np.array_equal(np.array(data.image(1)), np.array(image))


def test_default_split_has_train_and_test(shapenet_root: Path) -> None:
    assert len(ShapeNetDataModule(shapenet_root).train_dataset()) == 8
    assert len(ShapeNet(shapenet_root, "test")) == 2


def test_category_table_by_rows(shapenet_root: Path) -> None:
    rows = [
        {"catalogue": 2691156, "describe": "airplane"},
        {"catalogue": 4379243, "describe": "table"},
    ]
    (shapenet_root / "shapenet55.json").write_text(json.dumps(rows))
    assert ShapeNet(shapenet_root).texts(1)[0] == "table."


def test_missing_files_raise_an_error_with_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not found") as error:
        ShapeNet(tmp_path / "nowhere")
    for part in ("nowhere/ShapeNet-55/test.txt", "shapenet_pc/", "github.com", "data.root="):
        assert part in str(error.value)


def test_invalid_files_raise_errors(shapenet_root: Path) -> None:
    data, path = ShapeNet(shapenet_root), shapenet_root / "shapenet_pc" / "02691156-model3.npy"
    row = data.ids.index("02691156-model3")
    original = path.read_bytes()
    points = np.load(path)
    points[5, 1] = np.nan
    invalid_arrays = {
        "1 of 8192 points are NaN or infinite": points,
        "expected numbers of shape": np.zeros(7),
        "expected numbers of shape .N, 3.": np.array([{"a": 1}], dtype=object),
    }
    for message, array in invalid_arrays.items():
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
            data.points(row)
    for content, message in ((b"", "is empty"), (original[:300], "not a readable array")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path.name}: {message}"):
            data.points(row)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        data.points(row)
    image = shapenet_root / "shapenet_img" / "02691156-model3.png"
    image.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=f"{image.name}: not a readable image"):
        data.image(row)


def test_invalid_splits_and_tables_raise_value_error(shapenet_root: Path) -> None:
    with pytest.raises(ValueError, match="no split 'val': choose train, test or all"):
        ShapeNet(shapenet_root, "val")
    table = shapenet_root / "shapenet55.json"
    table.write_text(json.dumps({"catalogue": {"0": 2691156}, "describe": {"0": "airplane"}}))
    with pytest.raises(ValueError, match="has no category for .'04379243'"):
        ShapeNet(shapenet_root)
    table.write_text('{"catalogue": 1}')
    with pytest.raises(ValueError, match="not a readable table with the columns"):
        ShapeNet(shapenet_root)
    table.write_text("{")
    with pytest.raises(ValueError, match=r"shapenet55.json: not a readable JSON file"):
        ShapeNet(shapenet_root)


def test_binary_split_files_raise_value_error(shapenet_root: Path) -> None:
    (shapenet_root / "ShapeNet-55" / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"train.txt: not a readable list of names"):
        ShapeNet(shapenet_root)


def test_clouds_of_different_sizes_raise_value_error(shapenet_root: Path) -> None:
    np.save(shapenet_root / "shapenet_pc" / "02691156-model3.npy", np.zeros((500, 3)))
    data = ShapeNetDataModule(shapenet_root, batch_size=8)
    data.setup("fit")
    with pytest.raises(ValueError, match="must have the same number") as error:
        next(iter(data.train_dataloader()))
    assert "02691156-model3" in str(error.value)


def test_copies_without_the_table_have_classes_but_no_text(shapenet_root: Path) -> None:
    with_table = ShapeNet(shapenet_root)
    (shapenet_root / "shapenet55.json").unlink()
    data = ShapeNet(shapenet_root)
    assert data.ids == with_table.ids
    assert list(SYNSETS) == sorted(SYNSETS)
    assert len(data.classes) == 55
    names = [with_table.classes[label] for label in with_table.labels]
    assert [data.classes[label] for label in data.labels] == names
    assert np.array_equal(data.points(3), with_table.points(3))
    with pytest.raises(ValueError, match=r"shapenet55\.json: not found: .*student=generative"):
        data.texts(0)
    (shapenet_root / "ShapeNet-55" / "train.txt").write_text("00000001-a.npy")
    with pytest.raises(ValueError, match=r"train\.txt: \['00000001'\] are none of the 55 synsets"):
        ShapeNet(shapenet_root)


def test_other_subsets_have_their_own_lists(shapenet_root: Path) -> None:
    (shapenet_root / "ShapeNet-Unseen21").mkdir()
    (shapenet_root / "ShapeNet-Unseen21" / "test.txt").write_text("04379243-model0.npy\n")
    module = ShapeNetDataModule(shapenet_root, subset="ShapeNet-Unseen21")
    assert list(module.train_dataset().ids) == ["04379243-model0"]
    assert module.settings() == {"subset": "ShapeNet-Unseen21"}
    with pytest.raises(ValueError, match=r"ShapeNet-Unseen21 has no split 'train': .* test or all"):
        ShapeNet(shapenet_root, "train", subset="ShapeNet-Unseen21")
    with pytest.raises(ValueError, match="no subset 'ShapeNet-21': choose ShapeNet-55, ShapeNet-"):
        ShapeNetDataModule(shapenet_root, subset="ShapeNet-21")
    (shapenet_root / "shapenet55.json").unlink()
    (shapenet_root / "ShapeNet-55").rename(shapenet_root / "lists")
    with pytest.raises(FileNotFoundError, match=r"set data\.subset=ShapeNet-Unseen21"):
        ShapeNet(shapenet_root)
