"""Read a checkpoint's provenance: its run's data, recipe, hardware and metrics."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recon.checkpoints.locate import locate_checkpoint
from recon.checkpoints.reader import METADATA_KEY, PROVENANCE_KEY, describe_format, read_checkpoint
from recon.checkpoints.run_config import get_nested, read_config
from recon.data.io.arrays import read_json
from recon.data.io.file_checks import wrap_read_errors
from recon.utils.atomic_write import write_atomic
from recon.utils.results_file import iter_metrics

ENVIRONMENT_FILENAME = "environment.json"
PRETRAINING_METRICS = {"linear_svm": "linear SVM accuracy", "zero_shot": "zero-shot accuracy"}
"""Labels of the metrics of pretraining on the bundled data set."""
CALIBRATED_METRIC = "linear SVM accuracy, random init, recalibrated BatchNorm"
BUNDLED_TEST = "141 test shapes of 26 classes of the bundled data set, one seed, one view"
PRETRAINING_PROTOCOLS = {
    "linear_svm": BUNDLED_TEST,
    "zero_shot": f"{BUNDLED_TEST}; the training captions often contain the class word",
}
REPORTED_PACKAGES = ("recon-pointcloud", "torch", "lightning", "timm", "numpy")


def collect_environment() -> dict[str, Any]:
    """Return the hardware and the package versions of this process."""
    import torch

    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _get_processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": devices,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in REPORTED_PACKAGES},
    }


def _get_processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_environment(folder: Path) -> None:
    """Write hardware and package versions to environment.json in a run's folder."""
    write_atomic(
        folder / ENVIRONMENT_FILENAME, json.dumps(collect_environment(), indent=1).encode()
    )


def read_provenance(checkpoint: str | Path) -> dict[str, Any]:
    """Return the provenance of weights: format, run, data, recipe, hardware, metrics.

    It is read from the file, from the run's folder that contains it, or from the configuration of
    a saved folder. Unknown entries are absent. Raises what `read_checkpoint` raises, and ValueError
    for a broken config.yaml, results.json or environment.json.
    """
    path = locate_checkpoint(checkpoint)
    contents = read_checkpoint(path)
    if PROVENANCE_KEY in contents:
        stored = contents[PROVENANCE_KEY]
        stored = stored if isinstance(stored, dict) else {}
        rows = stored.get("metrics") if isinstance(stored.get("metrics"), list) else []
        metrics = [row for row in rows or () if _is_metric_row(row)]
        return {**stored, "metrics": metrics, "format": "saved folder"}
    if METADATA_KEY not in contents:
        provenance: dict[str, Any] = {"format": describe_format(path, contents)}
        metrics = [*_extract_released_metrics(contents)]
        return provenance | _extract_progress(contents) | {"metrics": metrics}
    provenance = {"format": "checkpoint of this library", **_extract_progress(contents)}
    if path.parent.name == "checkpoints":
        provenance |= read_run_provenance(path.absolute().parents[1])
    return provenance


def _is_metric_row(row: Any) -> bool:
    """Tell whether a value is a metric: a measure, a protocol, and numbers."""
    if not isinstance(row, dict) or not {"measure", "protocol", "value"} <= row.keys():
        return False
    interval = row.get("interval", [0, 0])
    numbers = [row["value"], *interval] if isinstance(interval, list | tuple) else []
    return len(numbers) == 3 and all(type(x) in (int, float) for x in numbers)


def _extract_progress(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return the epoch, numbered from 1, and the step at which weights were saved."""
    epoch, step = checkpoint.get("epoch"), checkpoint.get("global_step")
    progress = {"epoch": epoch + 1} if type(epoch) is int else {}
    return progress | ({"step": step} if type(step) is int else {})


def _extract_released_metrics(checkpoint: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the best metrics in a released file; their protocol is unknown."""
    best = checkpoint.get("best_metrics") or checkpoint.get("metrics")
    for name, value in best.items() if isinstance(best, Mapping) else ():
        if isinstance(value, int | float) or hasattr(value, "item"):
            protocol = "as stated in its file, protocol unknown"
            yield {"measure": str(name), "value": float(value), "protocol": protocol}


def read_run_provenance(folder: Path) -> dict[str, Any]:
    """Return the provenance from a run's config.yaml, environment.json and results.json."""
    provenance: dict[str, Any] = {}
    if (folder / "config.yaml").is_file():
        provenance |= _read_config_provenance(folder / "config.yaml")
    if (folder / ENVIRONMENT_FILENAME).is_file():
        provenance["hardware"] = _read_json_object(folder / ENVIRONMENT_FILENAME)
    if (folder / "results.json").is_file():
        results = _read_json_object(folder / "results.json")
        with wrap_read_errors(folder / "results.json", "file of a run's results"):
            provenance["metrics"] = [row for row in extract_metrics(results) if _is_metric_row(row)]
    return provenance


def _read_json_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: contains a {type(content).__name__}, not names and values")
    return content


def _read_config_provenance(path: Path) -> dict[str, Any]:
    """Extract the data and the recipe from a run's configuration; include the configuration."""
    config = read_config(path)

    def get(*names: str) -> Any:
        return get_nested(config, *names)

    def get_class(*names: str) -> str | None:
        target = get(*names, "_target_")
        return target and str(target).rpartition(".")[2]

    teachers = get("teacher") if isinstance(get("teacher"), dict) else {}
    recipe = {
        "student": get_class("task"),
        "teachers": [f"{name}: {get_class('teacher', name)}" for name in teachers
                     if get_class("teacher", name)],
        "started from": _get_file_name(get("checkpoint")),
        "optimizer": get_class("optimizer"),
        "learning rate": get("optimizer", "lr"),
        "batch size": get("data", "batch_size"),
        "epochs asked": get("trainer", "max_epochs"),
        "precision": get("trainer", "precision"),
        "points": get("num_points"),
        "seed": get("seed"),
    }  # fmt: skip
    data = (get_class("data") or "").removesuffix("DataModule")
    split, test = get("data", "split"), get("data", "test_split")
    return {
        "name": get("name"),
        "data": {"set": data, "split": split, "test split": test},
        "recipe": {name: value for name, value in recipe.items() if value not in (None, [])},
        "config": OmegaConf.to_yaml(OmegaConf.create(_shorten_paths(config))),
    }


def _shorten_paths(node: Any) -> Any:
    """Shorten absolute paths in a configuration to file names: it may be published."""
    if isinstance(node, dict):
        return {name: _shorten_paths(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_shorten_paths(value) for value in node]
    is_absolute = isinstance(node, str) and Path(node).expanduser().is_absolute()
    return _get_file_name(node) if is_absolute else node


def _get_file_name(path: Any) -> str | None:
    """Return the last part of a path, because folder names of the author are private."""
    return Path(str(path)).name if path else None


TEST_COUNT_KEYS = ("test_shapes", "shapes", "rooms", "test_rooms")


def extract_metrics(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics in a results.json of any task, each with its protocol."""
    for metric in iter_metrics(results):
        protocol = ", ".join(filter(None, (metric.protocol, _describe_protocol(results))))
        is_pretraining = metric.name in PRETRAINING_METRICS
        if is_pretraining:
            protocol = PRETRAINING_PROTOCOLS[metric.name]
        row = {
            "measure": PRETRAINING_METRICS.get(metric.name) or metric.name.replace("_", " "),
            "value": metric.value,
        }
        interval = {"interval": list(metric.interval)} if metric.interval else {}
        yield row | interval | {"protocol": protocol}
        if metric.name == "linear_svm" and (calibrated := _get_calibrated_svm(results)):
            yield {"measure": CALIBRATED_METRIC, **calibrated, "protocol": protocol}


def _describe_protocol(results: Mapping[str, Any]) -> str:
    """Return the protocol of a test as text."""
    if "declared" in results:  # of recon.evaluate, before the results had a schema
        return json.dumps(results["declared"])
    if "fingerprint" in results:
        return json.dumps(results["protocol"])
    settings = results["protocol"] if "schema_version" in results else results
    counts = [f"{settings[n]} {n.replace('_', ' ')}" for n in TEST_COUNT_KEYS if n in settings]
    overlap = settings.get("tested_on_training_shapes")
    trained = [f"{overlap} of them TRAINED ON"] if overlap else []
    return ", ".join([f"eval.selection={settings.get('selection')}", *counts, *trained])


def _get_calibrated_svm(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the linear SVM accuracy of random weights with recalibrated BatchNorm."""
    if "schema_version" in results:
        row = results.get("baselines", {}).get("calibrated", {}).get("linear_svm")
        return row and {"value": row["value"], "interval": [row["low"], row["high"]]}
    value, low, high = results["svm"]["calibrated"]
    return {"value": value, "interval": [low, high]}
