"""Where a file of weights came from: what its run left beside it, for cards and tables."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recon.checkpoints.locate import locate_checkpoint
from recon.checkpoints.reader import METADATA_KEY, PROVENANCE_KEY, describe_family, read_checkpoint
from recon.checkpoints.run_config import get_nested, read_config
from recon.data.io.arrays import read_json
from recon.data.io.file_checks import wrap_read_errors
from recon.utils.atomic_write import write_atomic

ENVIRONMENT_FILENAME = "environment.json"
SVM_METRIC_NAMES = {
    "pretrained": "linear SVM accuracy",
    "calibrated": "linear SVM accuracy, untrained network with its batch statistics measured",
}
REPORTED_PACKAGES = ("recon-pointcloud", "torch", "lightning", "timm", "numpy")


def collect_environment() -> dict[str, Any]:
    """Return what a run depends on beside its configuration: hardware and versions."""
    import torch

    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": devices,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in REPORTED_PACKAGES},
    }


def _processor() -> str:
    """Return the processor's name where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_environment(folder: Path) -> None:
    """Keep what a run depends on in its folder."""
    write_atomic(
        folder / ENVIRONMENT_FILENAME, json.dumps(collect_environment(), indent=1).encode()
    )


def read_provenance(checkpoint: str | Path) -> dict[str, Any]:
    """Return what is known of weights: format, run, data, recipe, hardware, metrics.

    Read from the file, from what its run left beside its folder of checkpoints, and from the
    configuration of a saved folder. What nobody wrote down is absent. Raises what
    `read_checkpoint` raises, and ValueError for a broken config.yaml, results.json or environment.
    """
    path = locate_checkpoint(checkpoint)
    contents = read_checkpoint(path)
    if PROVENANCE_KEY in contents:
        told = contents[PROVENANCE_KEY]
        told = told if isinstance(told, dict) else {}
        rows = told.get("metrics") if isinstance(told.get("metrics"), list) else []
        figures = [row for row in rows or () if _is_figure(row)]
        return {**told, "metrics": figures, "format": "saved folder"}
    if METADATA_KEY not in contents:
        found: dict[str, Any] = {"format": f"released {describe_family(path, contents)} weights"}
        return found | _reached(contents) | {"metrics": [*_released_metrics(contents)]}
    found = {"format": "checkpoint of this library", **_reached(contents)}
    if path.parent.name == "checkpoints":
        found |= read_run_provenance(path.absolute().parents[1])
    return found


def _is_figure(row: Any) -> bool:
    """Tell whether a row of figures is one: its measure, its protocol, numbers."""
    if not isinstance(row, dict) or not {"measure", "protocol", "value"} <= row.keys():
        return False
    ends = row.get("interval", [0, 0])
    numbers = [row["value"], *ends] if isinstance(ends, list | tuple) else []
    return len(numbers) == 3 and all(type(x) in (int, float) for x in numbers)


def _reached(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return the epoch, numbered from 1, and the step in which weights were saved."""
    epoch, step = checkpoint.get("epoch"), checkpoint.get("global_step")
    found = {"epoch": epoch + 1} if type(epoch) is int else {}
    return found | ({"step": step} if type(step) is int else {})


def _released_metrics(checkpoint: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the best figures that a released file holds; it does not tell their protocol."""
    best = checkpoint.get("best_metrics") or checkpoint.get("metrics")
    for name, value in best.items() if isinstance(best, Mapping) else ():
        if isinstance(value, int | float) or hasattr(value, "item"):
            protocol = "as its file says, which does not tell the protocol"
            yield {"measure": str(name), "value": float(value), "protocol": protocol}


def read_run_provenance(folder: Path) -> dict[str, Any]:
    """Return what a run left in its folder: config.yaml, environment.json and results.json."""
    found: dict[str, Any] = {}
    if (folder / "config.yaml").is_file():
        found |= _of_config(folder / "config.yaml")
    if (folder / ENVIRONMENT_FILENAME).is_file():
        found["hardware"] = _json(folder / ENVIRONMENT_FILENAME)
    if (folder / "results.json").is_file():
        results = _json(folder / "results.json")
        with wrap_read_errors(folder / "results.json", "file of a run's results"):
            found["metrics"] = [row for row in extract_metrics(results) if _is_figure(row)]
    return found


def _json(path: Path) -> dict[str, Any]:
    held = read_json(path)
    if not isinstance(held, dict):
        raise ValueError(f"{path}: holds a {type(held).__name__}, not names and values")
    return held


def _of_config(path: Path) -> dict[str, Any]:
    """Pick out of a run's configuration what says how it was trained; keep all of it beside."""
    config = read_config(path)

    def at(*names: str) -> Any:
        return get_nested(config, *names)

    def kind(*names: str) -> str | None:
        target = at(*names, "_target_")
        return target and str(target).rpartition(".")[2]

    teachers = at("teacher") if isinstance(at("teacher"), dict) else {}
    recipe = {
        "student": kind("task"),
        "teachers": [f"{name}: {kind('teacher', name)}" for name in teachers
                     if kind("teacher", name)],
        "started from": _name(at("checkpoint")),
        "optimizer": kind("optimizer"),
        "learning rate": at("optimizer", "lr"),
        "batch size": at("data", "batch_size"),
        "epochs asked": at("trainer", "max_epochs"),
        "precision": at("trainer", "precision"),
        "points": at("num_points"),
        "seed": at("seed"),
    }  # fmt: skip
    data = (kind("data") or "").removesuffix("DataModule")
    split, test = at("data", "split"), at("data", "test_split")
    return {
        "name": at("name"),
        "data": {"set": data, "split": split, "test split": test},
        "recipe": {name: value for name, value in recipe.items() if value not in (None, [])},
        "config": OmegaConf.to_yaml(OmegaConf.create(_without_places(config))),
    }


def _without_places(node: Any) -> Any:
    """Shorten the paths in a configuration to their names: it may be shown to everyone."""
    if isinstance(node, dict):
        return {name: _without_places(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_without_places(value) for value in node]
    placed = isinstance(node, str) and Path(node).expanduser().is_absolute()
    return _name(node) if placed else node


def _name(path: Any) -> str | None:
    """Return a path's last part: folders of the one who trained are nobody's concern."""
    return Path(str(path)).name if path else None


METRIC_NAMES = (
    "overall_accuracy",
    "mean_class_accuracy",
    "miou",
    "macc",
    "instance_miou",
    "class_miou",
)
TEST_COUNT_KEYS = ("test_shapes", "shapes", "rooms")


def extract_metrics(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """List the figures of a results.json of any task, each with its protocol."""
    if "pretrained" in (results.get("svm") or {}):
        yield from _pretraining(results)
    if "declared" in results:  # of recon.evaluate
        yield from _figures(results, json.dumps(results["declared"]))
        return
    tested = ", ".join(
        f"{results[n]} {n.replace('_', ' ')}" for n in TEST_COUNT_KEYS if n in results
    )
    told = f"eval.selection={results.get('selection')}, {tested}"
    if seen := results.get("tested_on_training_shapes"):
        told += f", {seen} of them TRAINED ON"
    yield from _figures(results, told)
    for view, scores in (results.get("results") or {}).items():
        yield from _figures(scores, f"{view}, {told}")


def _figures(scores: Mapping[str, Any], protocol: str) -> Iterator[dict[str, Any]]:
    for name in METRIC_NAMES:
        value, row = scores.get(name), {"measure": name.replace("_", " "), "protocol": protocol}
        if isinstance(value, Mapping):
            between = {"interval": [value["low"], value["high"]]} if "low" in value else {}
            yield row | {"value": value["mean"]} | between
        elif isinstance(value, float):
            yield row | {"value": value}


def _pretraining(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """List what the embedded data's test shapes said after a pretraining."""
    told = "141 test shapes of 26 classes of the embedded data, one seed, one view"
    for row, name in SVM_METRIC_NAMES.items():
        mean, low, high = results["svm"][row]
        yield {"measure": name, "value": mean, "interval": [low, high], "protocol": told}
    if results.get("zero_shot") is not None:
        protocol = f"{told}; the training captions often hold the class word"
        yield {"measure": "zero-shot accuracy", "value": results["zero_shot"],
               "protocol": protocol}  # fmt: skip
