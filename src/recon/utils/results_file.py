"""The form of results.json, which is the same for all tasks: docs/reports.md.

Files of earlier versions, without `schema_version`, can still be read.
"""

import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_VERSION = 2
RESULTS_FILE = "results.json"
METRIC_NAMES = (
    "overall_accuracy",
    "mean_class_accuracy",
    "miou",
    "macc",
    "instance_miou",
    "class_miou",
    "linear_svm",
    "zero_shot",
)
"""Metrics of the tasks; fractions, as all metrics of a file."""
NON_DATA_OPTIONS = ("_target_", "root", "num_workers", "on_error")
"""Data options that do not affect results, or hold a path of the machine."""


class Metric(NamedTuple):
    """A metric of a results file."""

    name: str
    """Without the variant: `overall_accuracy` for `overall_accuracy/voted`."""
    value: float
    interval: tuple[float, float] | None
    """95 % interval, None if there is none."""
    protocol: str | None
    """Views, votes or windows; None if the task has a single protocol."""
    is_primary: bool
    """Whether the metric belongs to the first protocol of the file."""


def build_metric(value: float | Sequence[float], **fields: Any) -> dict[str, Any]:
    """Return a metric as {value, low, high}; the interval is null if `value` is a single number.

    A sequence is value, low and high. Values that are not finite are null, as JSON requires.
    """
    numbers = [*value] if isinstance(value, Sequence) else [value, None, None]
    finite = [x if x is not None and math.isfinite(x) else None for x in numbers]
    return dict(zip(("value", "low", "high"), finite, strict=True)) | fields


@lru_cache(maxsize=1)
def describe_version() -> dict[str, str | None]:
    """Return the version of the package, and the git commit of its checkout or null.

    A commit ends in `-dirty` if files were changed after it.
    """
    package = Path(__file__).parents[1]
    command = ["git", "-C", str(package), "describe", "--always", "--abbrev=40", "--dirty",
               "--exclude", "*"]  # fmt: skip
    commit = None
    if (package.parents[1] / ".git").exists():
        # git may be missing, or refuse the folder.
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            commit = done.stdout.strip() or None
    return {"version": version("recon-pointcloud"), "commit": commit}


def describe_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data set of a run's configuration, and its options that affect results."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return {}
    name = str(data.get("_target_", "")).rpartition(".")[2].removesuffix("DataModule")
    options = {
        key: value
        for key, value in data.items()
        if key not in NON_DATA_OPTIONS and isinstance(value, bool | int | float | str | list)
    }
    return {"set": name or None, **options}


def build_results(
    config: Mapping[str, Any],
    *,
    task: str,
    metrics: Mapping[str, Any],
    checkpoint: str | None,
    protocol: Mapping[str, Any],
    votes: int = 1,
    split: str | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Return the content of results.json.

    `config` is the configuration of the run. `protocol` are the settings of the test, `details` are
    further entries of the task. The default of `split` is the test split of the configuration.
    """
    data = describe_data(config)
    return {
        "schema_version": SCHEMA_VERSION,
        **describe_version(),
        "task": task,
        "name": config.get("name"),
        "seed": config.get("seed"),
        "checkpoint": checkpoint,
        "data": data,
        "split": split or data.get("test_split"),
        "votes": votes,
        "protocol": dict(protocol),
        "metrics": dict(metrics),
        **details,
    }


class ProtocolResults(NamedTuple):
    """Results of one way of testing: single views, votes or windows."""

    protocol: str
    variant: str
    """Short name, which is part of the names of its metrics."""
    metrics: Mapping[str, dict[str, Any]]
    details: Mapping[str, Any]
    """Values that are no metrics: per class, confusion matrix."""


def combine_protocols(
    rows: Sequence[ProtocolResults],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the metrics and the details of several protocols.

    The metrics of the first protocol have their plain names, those of the others
    `<name>/<variant>`. The details are by the name of the protocol.
    """
    metrics = {
        f"{name}/{row.variant}" if number else name: metric | {"protocol": row.protocol}
        for number, row in enumerate(rows)
        for name, metric in row.metrics.items()
    }
    return metrics, {row.protocol: dict(row.details) for row in rows}


def iter_metrics(results: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the metrics of a results file, also of one without `schema_version`."""
    if "schema_version" not in results:
        yield from _iter_unversioned_metrics(results)
        return
    for key, row in results["metrics"].items():
        name, _, variant = key.partition("/")
        if row["value"] is not None:
            interval = None if row.get("low") is None else (row["low"], row["high"])
            yield Metric(name, row["value"], interval, row.get("protocol"), not variant)


def _iter_unversioned_metrics(results: Mapping[str, Any]) -> Iterator[Metric]:
    svm = results.get("svm") or {}
    if "pretrained" in svm:
        value, low, high = svm["pretrained"]
        yield Metric("linear_svm", value, (low, high), None, True)
        if results.get("zero_shot") is not None:
            yield Metric("zero_shot", results["zero_shot"], None, None, True)
    yield from _iter_rows({k: v for k, v in results.items() if k != "zero_shot"}, None, True)
    for number, (protocol, rows) in enumerate((results.get("results") or {}).items()):
        yield from _iter_rows(rows, protocol, number == 0)


def _iter_rows(rows: Mapping[str, Any], protocol: str | None, is_primary: bool) -> Iterator[Metric]:
    for name in METRIC_NAMES:
        value = rows.get(name)
        if isinstance(value, Mapping):
            interval = (value["low"], value["high"]) if "low" in value else None
            yield Metric(name, value["mean"], interval, protocol, is_primary)
        elif isinstance(value, int | float):
            yield Metric(name, value, None, protocol, is_primary)


def get_confusions(results: Mapping[str, Any]) -> dict[str, list[list[int]]]:
    """Return the confusion matrix of each protocol of a results file."""
    rows = results.get("protocols" if "schema_version" in results else "results") or {}
    return {name: row["confusion"] for name, row in rows.items() if "confusion" in row}
