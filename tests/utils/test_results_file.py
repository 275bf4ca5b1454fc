"""Metrics of results.json: their form, and the reading of files of earlier versions."""

import json
import math
import re
from importlib.metadata import version
from typing import Any

import pytest

from recon.utils.results_file import (
    SCHEMA_VERSION,
    Metric,
    ProtocolResults,
    build_metric,
    build_results,
    combine_protocols,
    describe_version,
    get_confusions,
    iter_metrics,
)

CONFIG: dict[str, Any] = {
    "name": "run",
    "seed": 3,
    "data": {
        "_target_": "recon.data.datasets.few_shot.FewShotDataModule",
        "root": "/somewhere",
        "test_split": "test",
        "way": 5,
        "transform": {"_target_": "x"},
    },
}


def test_metrics_have_a_value_and_an_interval_or_null() -> None:
    assert build_metric(0.5) == {"value": 0.5, "low": None, "high": None}
    assert build_metric((0.5, 0.4, 0.6)) == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert build_metric(math.nan)["value"] is None


def test_results_name_what_was_measured_and_by_which_code() -> None:
    results = build_results(
        CONFIG,
        task="classify",
        metrics={"overall_accuracy": build_metric(0.5)},
        checkpoint="checkpoints/best.ckpt",
        protocol={"selection": "val"},
        votes=10,
        classes=["a"],
    )
    assert json.loads(json.dumps(results)) == results
    assert results["schema_version"] == SCHEMA_VERSION
    assert results["data"] == {"set": "FewShot", "test_split": "test", "way": 5}
    told = [results[name] for name in ("task", "name", "seed", "split", "votes", "checkpoint")]
    assert told == ["classify", "run", 3, "test", 10, "checkpoints/best.ckpt"]
    assert results["version"] == version("recon-pointcloud")
    commit = describe_version()["commit"]
    assert results["commit"] == commit
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)


def test_protocols_after_the_first_have_a_suffix() -> None:
    rows = [
        ProtocolResults(
            "one view", "", {"overall_accuracy": build_metric(0.5)}, {"confusion": [[1]]}
        ),
        ProtocolResults("2 votes", "voted", {"overall_accuracy": build_metric(0.6)}, {}),
    ]
    metrics, protocols = combine_protocols(rows)
    results = build_results(
        {}, task="classify", metrics=metrics, checkpoint=None, protocol={}, protocols=protocols
    )
    assert [*iter_metrics(results)] == [
        Metric("overall_accuracy", 0.5, None, "one view", True),
        Metric("overall_accuracy", 0.6, None, "2 votes", False),
    ]
    assert get_confusions(results) == {"one view": [[1]]}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"svm": {"pretrained": [0.7, 0.6, 0.8]}, "zero_shot": 0.25},
            [("linear_svm", 0.7, (0.6, 0.8), None), ("zero_shot", 0.25, None, None)],
        ),
        (
            {"overall_accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6}, "declared": {}},
            [("overall_accuracy", 0.5, (0.4, 0.6), None)],
        ),
        ({"instance_miou": 0.8}, [("instance_miou", 0.8, None, None)]),
        (
            {"results": {"w": {"miou": 0.3, "overall_accuracy": {"mean": 0.6}}}},
            [("overall_accuracy", 0.6, None, "w"), ("miou", 0.3, None, "w")],
        ),
    ],
)
def test_files_without_a_schema_are_read(results: dict[str, Any], expected: list[Any]) -> None:
    assert [tuple(metric)[:4] for metric in iter_metrics(results)] == expected
