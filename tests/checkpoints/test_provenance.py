import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import recon
from recon.checkpoints.provenance import read_provenance, read_run_provenance
from saved_run import write_run


def test_provenance_survives_saving(tmp_path: Path) -> None:
    checkpoint = write_run(tmp_path / "run") / "checkpoints" / "last.ckpt"
    provenance = read_provenance(checkpoint)
    recon.save_pretrained(checkpoint, tmp_path / "saved")
    saved = read_provenance(tmp_path / "saved")
    assert saved == {**provenance, "format": "saved folder"}
    assert saved["data"]["set"] == "ShapeNet"
    assert saved["hardware"]["packages"]["torch"] == version("torch")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"selection": "val", "test_shapes": 9, "tested_on_training_shapes": 2,
             "results": {"one view": {"overall_accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6},
                                      "mean_class_accuracy": 0.25}}},
            {"overall accuracy": (0.5, "one view, eval.selection=val, 9 test shapes, 2 of them"),
             "mean class accuracy": (0.25, "TRAINED ON")},
        ),
        (
            {"selection": "test", "shapes": 3, "instance_miou": 0.8, "class_miou": 0.7},
            {"instance miou": (0.8, "eval.selection=test, 3 shapes"), "class miou": (0.7, "")},
        ),
        (
            {"selection": "area 5", "rooms": 4, "results": {"whole rooms, 1 votes": {
                "miou": 0.3, "macc": 0.4, "overall_accuracy": {"mean": 0.6}}}},
            {"miou": (0.3, "whole rooms, 1 votes, eval.selection=area 5, 4 rooms"),
             "macc": (0.4, ""), "overall accuracy": (0.6, "")},
        ),
    ],
)  # fmt: skip
def test_metrics_of_every_task_include_their_protocol(
    results: dict[str, Any], expected: dict[str, tuple[float, str]], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = {row["measure"]: row for row in read_run_provenance(tmp_path)["metrics"]}
    assert metrics.keys() == expected.keys()
    for measure, (value, protocol) in expected.items():
        assert metrics[measure]["value"] == value
        assert protocol in metrics[measure]["protocol"]


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "environment.json"])
def test_unreadable_files_of_a_run_raise_value_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name}: not "):
        read_run_provenance(tmp_path)
