"""Indices and shards of prepared data: what does not fit together is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from safetensors.numpy import load_file, save_file

from recon.cli.config_dir import conf_dir
from recon.data.prepared import dataset as dataset_module
from recon.data.prepared.dataset import PreparedDataset
from recon.data.prepared.layout import (
    INDEX_NAME,
    MANIFEST_NAME,
    prepared_splits,
)
from recon.prepare import prepare

INDEX = "all"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of three prepared clouds of two classes."""
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    for name in ("box/a", "box/b", "ball/a"):
        (root / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        colors = rng.uniform(size=(9, 3)).astype(np.float32)
        points = rng.normal(size=(9, 3))
        np.savez(root / "own" / f"{name}.npz", points=points, normals=points, colors=colors)
    options = ["data=folder", f"data.root={root / 'own'}", f"out={root / 'out'}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        prepare(compose("prepare", [*options, "num_workers=1", "images=false"]))
    out = root / "out"
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.*") if p.is_file()}


@pytest.fixture
def root(template: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in template.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def change(root: Path, change_index: Callable[[dict[str, Any]], object]) -> None:
    path = root / INDEX / INDEX_NAME
    index = json.loads(path.read_text())
    change_index(index)
    path.write_text(json.dumps(index))


def replace(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index.update(changes)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "format": replace(format=99),
    "label_text": replace(labels=["0", "0", "1"]),
    "label_list": replace(labels=[[0], [0], [1]]),
    "label_range": replace(labels=[0, 0, 2]),
    "label_below": replace(labels=[0, 0, -2]),
    "label_count": replace(labels=[0]),
    "categories": replace(categories=[0, 0, 9]),
    "negative_count": lambda index: index["files"][0].update(clouds=-1),
    "more_clouds": lambda index: index["files"][0].update(clouds=4),
    "sentences": lambda index: index["sentences"].update(rows=[0, 0, 99]),
    "ids_text": replace(ids="abc"),
    "ids_number": replace(ids=["a", "b", 3]),
    "ids_unprintable": replace(ids=["a", "b", "c\x1b"]),
    "up": replace(up="w"),
    "mirrored": replace(mirrored=3),
    "parts": replace(parts={"box": [7]}),
    "outside": lambda index: index["files"][0].update(name="../../../other.npy"),
    "suffix": lambda index: index["files"][0].update(name="00000.npy"),
    **{
        f"without_{key}": lambda index, key=key: index["files"][0].pop(key)
        for key in ("name", "clouds", "bytes", "sha256")
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_does_not_fit_is_named(name: str, root: Path) -> None:
    assert len(PreparedDataset(root, INDEX)) == 3
    change(root, CHANGES[name])
    with pytest.raises(ValueError, match=r"index\.json: not a readable index"):
        PreparedDataset(root, INDEX)


def test_splits_are_those_of_the_manifest_that_are_there(root: Path, tmp_path: Path) -> None:
    assert prepared_splits(root) == [INDEX]
    (root / MANIFEST_NAME).write_text("[]")
    assert prepared_splits(root) == [INDEX]
    (tmp_path / "none").mkdir()
    assert prepared_splits(tmp_path / "none") == []


def rewrite(root: Path, change_tensors: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Write a shard with other content, in an index that gives its new size."""
    path = root / INDEX / "00000.safetensors"
    tensors = load_file(path)
    change_tensors(tensors)
    save_file(tensors, path)
    change(root, lambda index: index["files"][0].update(bytes=path.stat().st_size))


SHARDS: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "no_offsets": lambda tensors: tensors.pop("points_offsets"),
    "short_offsets": lambda tensors: tensors.update(points_offsets=np.zeros(1, np.int64)),
    "no_points": lambda tensors: tensors.update(points_offsets=np.zeros(4, np.int64)),
    "nan": lambda tensors: tensors["points"].fill(np.nan),
    "nan_colors": lambda tensors: tensors["colors"].fill(np.nan),
    "shift": lambda tensors: tensors.update(normals_offsets=np.array([0, 5, 9, 27])),
    "labels": lambda tensors: tensors.update(
        point_labels=np.full(27, 7, np.int32), point_labels_offsets=tensors["points_offsets"].copy()
    ),
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_that_does_not_fit_is_named(name: str, root: Path) -> None:
    rewrite(root, SHARDS[name])
    dataset = PreparedDataset(root, INDEX)
    with pytest.raises(ValueError, match=rf"^{root}"):
        dataset.cloud(0)


def test_labels_of_points_come_back(root: Path) -> None:
    change(root, replace(point_classes=["seat", "leg"]))
    labels = np.array([-1, 0, 1] * 9, np.int32)
    rewrite(
        root,
        lambda tensors: tensors.update(
            point_labels=labels, point_labels_offsets=tensors["points_offsets"].copy()
        ),
    )
    cloud = PreparedDataset(root, INDEX).cloud(0)
    assert cloud.point_labels is not None
    assert cloud.point_labels.tolist() == labels[:9].tolist()


def test_a_limited_number_of_shards_stays_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (root / INDEX / "00000.safetensors").read_bytes()
    (root / INDEX / "00001.safetensors").write_bytes(content)

    def double(index: dict[str, Any]) -> None:
        index["files"] += [index["files"][0] | {"name": "00001.safetensors"}]
        index["ids"] += ["d", "e", "f"]
        index.update(labels=[], families=[], categories=[])
        index["sentences"].update(rows=[])

    change(root, double)
    monkeypatch.setattr(dataset_module, "MAX_OPEN_SHARDS", 1)
    dataset = PreparedDataset(root, INDEX)
    for first in (0, 3, 0):
        assert np.array_equal(dataset.cloud(first).points, dataset.cloud(3 - first).points)
    for missing in (dataset.texts, dataset.category, dataset.image):
        with pytest.raises(ValueError, match="prepared without"):
            missing(0)
