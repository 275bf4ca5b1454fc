"""Labels, sentences, listed paths and arrays of data sets are checked before they are used."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.furniture import ARCHIVE_NAME, Furniture, asset_path, read_archive
from recon.data.datasets.modelnet import ModelNet
from recon.data.datasets.objaverse import OpenShape
from recon.data.datasets.shapenet import ShapeNet
from trees import write_modelnet, write_modelnet_cache, write_objaverse


@pytest.mark.parametrize("label", [[0], "0", None, np.array([0, 1])], ids=repr)
def test_labels_are_single_numbers(label: object, tmp_path: Path) -> None:
    write_modelnet_cache(tmp_path)
    (path,) = tmp_path.rglob("*.dat")
    path.write_bytes(pickle.dumps([[np.zeros((4, 6), np.float32)], [label]]))
    with pytest.raises(ValueError, match=r"fps\.dat: .*number"):
        ModelNet(tmp_path)


def test_lists_of_shapenet_name_files_inside_its_folder(shapenet_root: Path) -> None:
    path = shapenet_root / "ShapeNet-55" / "train.txt"
    path.write_text("02691156-/../../../other.npy\n")
    with pytest.raises(ValueError, match=r"train\.txt: lists .*path inside"):
        ShapeNet(shapenet_root, "train")


def test_lists_of_modelnet_name_files_inside_its_folder(tmp_path: Path) -> None:
    write_modelnet(tmp_path)
    folder = tmp_path / "modelnet40_normal_resampled"
    (folder / "modelnet40_shape_names.txt").write_text("../../other\n")
    (folder / "modelnet40_train.txt").write_text("../../other_0001\n")
    with pytest.raises(ValueError, match=r"modelnet40_train\.txt: lists .*path inside"):
        ModelNet(tmp_path)


@pytest.mark.parametrize("text", [5, float("nan"), np.array(["a", "b"]), {"a": 1}, None], ids=repr)
def test_sentences_of_other_types_are_passed_over(text: object, tmp_path: Path) -> None:
    written = write_objaverse(tmp_path)
    data = OpenShape(tmp_path)
    (sample, *_) = written.values()
    np.save(data.file_paths(0)[0], np.array(sample | {"text": text, "blip_caption": "a lamp"}))
    assert "a lamp" in data.texts(0)


@pytest.mark.parametrize("name", ["points", "colors", "icons", "label"])
def test_an_archive_of_furniture_without_one_of_its_arrays_is_named(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / ARCHIVE_NAME
    archive = dict(np.load(asset_path(ARCHIVE_NAME)))
    rows = np.flatnonzero(archive["split"] == 0)[:8]
    few = {k: v[rows] if len(v) == len(archive["split"]) else v for k, v in archive.items()}
    for changed in ({k: v for k, v in few.items() if k != name}, few | {name: few[name][:1]}):
        read_archive.cache_clear()
        np.savez(path, **changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            Furniture(["train"], root=tmp_path)
