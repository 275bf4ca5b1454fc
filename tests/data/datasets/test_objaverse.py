import json
from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.objaverse import ObjaverseLVISDataModule, OpenShape
from recon.teachers.prompts import build_prompts
from trees import objaverse


def test_the_tree_comes_back(tmp_path: Path) -> None:
    held = objaverse(tmp_path)
    data = OpenShape(tmp_path, "lvis")
    assert data.classes == ["easy_chair", "teapot"]
    assert data.labels.tolist() == [1, 0, 1]
    for row, name in enumerate(data.ids):
        assert np.array_equal(data.cloud(row).points, held[name]["xyz"])
        assert np.array_equal(data.cloud(row).colors, held[name]["rgb"])
    assert data.texts(1) == ["shape 1", "a drawing of 1"]
    path = next(tmp_path.rglob("11111111.npy"))
    np.save(path, {"xyz": held["11111111"]["xyz"]}, allow_pickle=True)
    assert data.texts(1) == build_prompts("easy chair")
    assert data.cloud(1).colors is None


@pytest.mark.parametrize("kind", ["group_and_id", "id", "path", "table"])
def test_other_kinds_of_lists_are_read(kind: str, tmp_path: Path) -> None:
    held = objaverse(tmp_path)
    path = tmp_path / "meta_data" / "split" / "lvis.json"
    entries = json.loads(path.read_text())
    if kind in ("id", "table"):
        for entry in entries:
            place = tmp_path / entry["data_path"].removeprefix("/mnt/data/")
            place.rename(tmp_path / place.name)
    lists = {
        "group_and_id": [
            {"dataset": "Objaverse", "group": Path(e["data_path"]).parent.name, "id": e["uid"]}
            for e in entries
        ],
        "id": [{"id": entry["uid"]} for entry in entries],
        "path": [entry["data_path"] for entry in entries],
        "table": {entry["uid"]: entry["category"] for entry in entries},
    }
    path.write_text(json.dumps(lists[kind]))
    data = OpenShape(tmp_path, "lvis")
    assert [np.array_equal(data.cloud(r).points, held[data.ids[r]]["xyz"]) for r in range(3)] == [
        True
    ] * 3
    if kind == "table":
        assert data.labels.tolist() == [1, 0, 1]


def test_shapes_are_turned_upright_as_the_literature_does(tmp_path: Path) -> None:
    held = objaverse(tmp_path)
    data = ObjaverseLVISDataModule(tmp_path, batch_size=3, keys=["colors"])
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    turned = data.augment(batch, training=False)
    for name, points, colors in zip(batch["id"], turned["points"], turned["colors"], strict=True):
        assert np.array_equal(points.numpy(), held[name]["xyz"][:, [0, 2, 1]])
        assert np.array_equal(colors.numpy(), held[name]["rgb"])


def test_bad_files_are_named(tmp_path: Path) -> None:
    objaverse(tmp_path)
    data = OpenShape(tmp_path, "lvis")
    path = next(tmp_path.rglob("00000000.npy"))
    xyz = np.zeros((10, 3), np.float32)
    for held, message in (
        ({"rgb": xyz}, "has no `xyz`"),
        ({"xyz": xyz, "rgb": xyz[:5]}, "colours have shape"),
        ({"xyz": xyz, "rgb": xyz - 1}, r"colours lie in \[-1"),
        ({"xyz": xyz + np.nan, "rgb": xyz}, "10 of 10 points are NaN"),
        ({"xyz": "none"}, "holds a str"),
    ):
        np.save(path, held, allow_pickle=True)
        with pytest.raises(ValueError, match=rf"00000000.npy: .*{message}"):
            data.cloud(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00000000.npy: not found"):
        data.cloud(0)
    listed = tmp_path / "meta_data" / "split" / "lvis.json"
    for entries, message in (([{"name": 1}], "none of data_path"), ([], "lists no shapes"),
                             (["../../etc/x.npy"], "no path inside")):  # fmt: skip
        listed.write_text(json.dumps(entries))
        with pytest.raises(ValueError, match=rf"lvis.json: .*{message}"):
            OpenShape(tmp_path, "lvis")
