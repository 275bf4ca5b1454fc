"""OpenShape: split formats, file contents, up axis, errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.objaverse import ObjaverseLVISDataModule, OpenShape
from recon.teachers.prompts import build_prompts
from trees import write_objaverse


def test_files_round_trip(tmp_path: Path) -> None:
    contents = write_objaverse(tmp_path)
    data = OpenShape(tmp_path, "lvis")
    assert data.classes == ["easy_chair", "teapot"]
    assert data.labels.tolist() == [1, 0, 1]
    for row, name in enumerate(data.ids):
        assert np.array_equal(data.cloud(row).points, contents[name]["xyz"])
        assert np.array_equal(data.cloud(row).colors, contents[name]["rgb"])
    assert data.texts(1) == ["shape 1", "a drawing of 1"]
    path = next(tmp_path.rglob("11111111.npy"))
    np.save(path, {"xyz": contents["11111111"]["xyz"]}, allow_pickle=True)
    assert data.texts(1) == build_prompts("easy chair")
    assert data.cloud(1).colors is None


@pytest.mark.parametrize("split_format", ["group_and_id", "id", "path", "table"])
def test_all_split_formats_are_read(split_format: str, tmp_path: Path) -> None:
    contents = write_objaverse(tmp_path)
    path = tmp_path / "meta_data" / "split" / "lvis.json"
    entries = json.loads(path.read_text())
    if split_format in ("id", "table"):
        for entry in entries:
            file = tmp_path / entry["data_path"].removeprefix("/mnt/data/")
            file.rename(tmp_path / file.name)
    splits = {
        "group_and_id": [
            {"dataset": "Objaverse", "group": Path(e["data_path"]).parent.name, "id": e["uid"]}
            for e in entries
        ],
        "id": [{"id": entry["uid"]} for entry in entries],
        "path": [entry["data_path"] for entry in entries],
        "table": {entry["uid"]: entry["category"] for entry in entries},
    }
    path.write_text(json.dumps(splits[split_format]))
    data = OpenShape(tmp_path, "lvis")
    for row, name in enumerate(data.ids):
        assert np.array_equal(data.cloud(row).points, contents[name]["xyz"])
    if split_format == "table":
        assert data.labels.tolist() == [1, 0, 1]


def test_up_axis_is_aligned_by_swapping_y_and_z(tmp_path: Path) -> None:
    contents = write_objaverse(tmp_path)
    data = ObjaverseLVISDataModule(tmp_path, batch_size=3, keys=["colors"])
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    aligned = data.augment(batch, training=False)
    for name, points, colors in zip(batch["id"], aligned["points"], aligned["colors"], strict=True):
        assert np.array_equal(points.numpy(), contents[name]["xyz"][:, [0, 2, 1]])
        assert np.array_equal(colors.numpy(), contents[name]["rgb"])


def test_invalid_files_raise_errors(tmp_path: Path) -> None:
    write_objaverse(tmp_path)
    data = OpenShape(tmp_path, "lvis")
    path = next(tmp_path.rglob("00000000.npy"))
    xyz = np.zeros((10, 3), np.float32)
    for content, message in (
        ({"rgb": xyz}, "has no `xyz`"),
        ({"xyz": xyz, "rgb": xyz[:5]}, "colors have shape"),
        ({"xyz": xyz, "rgb": xyz - 1}, r"colors are in \[-1"),
        ({"xyz": xyz + np.nan, "rgb": xyz}, "10 of 10 points are NaN"),
        ({"xyz": "none"}, "contains a str"),
    ):
        np.save(path, content, allow_pickle=True)
        with pytest.raises(ValueError, match=rf"00000000.npy: .*{message}"):
            data.cloud(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00000000.npy: not found"):
        data.cloud(0)
    split_path = tmp_path / "meta_data" / "split" / "lvis.json"
    for entries, message in (([{"name": 1}], "none of data_path"), ([], "lists no shapes"),
                             (["../../etc/x.npy"], "not a path inside")):  # fmt: skip
        split_path.write_text(json.dumps(entries))
        with pytest.raises(ValueError, match=rf"lvis.json: .*{message}"):
            OpenShape(tmp_path, "lvis")
