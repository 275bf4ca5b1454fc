"""Collect the results of the jobs of a multirun, grouped by the options in which they differ."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.checkpoints.run_config import get_nested, read_config
from recon.data.io.arrays import read_json
from recon.data.io.file_checks import wrap_read_errors
from recon.reports.comparison import LOGGED_SUFFIX, RunMetrics
from recon.utils.results_file import RESULTS_FILE, get_confusions, iter_metrics
from recon.utils.scheduler_env import FINISHED_FILE

REPEAT_OPTIONS = ("seed", "seeds", "data.fold", "data.episode_seed", "data.test_area")
"""Options that repeat a measurement rather than change it."""


METRIC_TITLES = {"linear_svm": "linear SVM", "zero_shot": "zero-shot", "miou": "mIoU",
                 "overall_accuracy": "accuracy"}  # fmt: skip
TABULATED_METRICS = (*METRIC_TITLES, "instance_miou", "class_miou")
"""Metrics of the table of a multirun."""


def _iter_accuracies(results: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the tabulated metrics in a run's results.json by title, as fractions."""
    selection = _get_selection(results)
    for metric in iter_metrics(results):
        if metric.name not in TABULATED_METRICS:
            continue
        title = METRIC_TITLES.get(metric.name, metric.name)
        if metric.name == "overall_accuracy" and metric.protocol is None:  # of recon.evaluate
            title = "overall accuracy"
        protocol = metric.protocol if metric.name in ("miou", "overall_accuracy") else None
        suffix = f"selection={selection}" if selection is not None else None
        yield ", ".join(filter(None, (title, protocol, suffix))), metric.value


def _get_selection(results: dict[str, Any]) -> str | None:
    settings = results["protocol"] if "schema_version" in results else results
    return settings.get("selection")


def collect_results(runs: Mapping[str, Sequence[Path]]) -> RunMetrics:
    """Return the metrics of finished runs by their options, then by metric; skip other runs."""
    table: RunMetrics = {}
    for options, folders in runs.items():
        candidates = [folder / "results.json" for folder in folders]
        paths = [path for path in candidates if path.is_file()]
        all_results = [read_json(path) for path in paths]
        for path, results in zip(paths, all_results, strict=True):
            rows = table.setdefault(options, {})
            with wrap_read_errors(path, "file of a run's results"):
                for name, value in _iter_accuracies(results):
                    if not math.isfinite(value):
                        raise ValueError(f"its {name} is {value}")
                    rows.setdefault(name, []).append(100.0 * value)
        with wrap_read_errors(paths[0] if paths else options, "file of a run's results"):
            for name, value in _iter_joint_mious(all_results):
                table[options][name] = [100 * value]
        for name, value in (item for folder in folders for item in _iter_logged_metrics(folder)):
            table.setdefault(options, {}).setdefault(f"{name}{LOGGED_SUFFIX}", []).append(value)
    return table


def collect_seeds(runs: Mapping[str, Sequence[Path]]) -> dict[str, list[int | None]]:
    """Return the seeds of the runs with results, in the order of `collect_results`."""
    return {
        options: [
            get_nested(read_config(folder / "config.yaml"), "seed")
            for folder in folders
            if (folder / "config.yaml").is_file()
            and any((folder / name).is_file() for name in (RESULTS_FILE, FINISHED_FILE))
        ]
        for options, folders in runs.items()
    }


def _iter_logged_metrics(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the objective of a search, and the total loss of a run without accuracies."""
    if not (folder / FINISHED_FILE).is_file():
        return
    metrics = read_json(folder / FINISHED_FILE)
    with wrap_read_errors(folder / FINISHED_FILE, "file of a run's logged metrics"):
        objective = get_nested(read_config(folder / "config.yaml"), "objective")
        loss = None if (folder / "results.json").is_file() else "train/total"
        for name in dict.fromkeys((objective, loss)):
            if name in metrics and math.isfinite(metrics[name]):
                yield name, float(metrics[name])


def _iter_joint_mious(all_results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield the mIoU over the rooms of several runs together, if each tested other rooms."""
    rooms = [name for results in all_results for name in results.get("ids", ())]
    confusions = [get_confusions(results) for results in all_results]
    has_rooms = len(all_results) > 1 and _has_rooms(all_results[0])
    if not has_rooms or len(set(rooms)) < len(rooms):
        return
    import torch

    from recon.tasks.iou import scene_scores

    selection = _get_selection(all_results[0])
    for protocol in confusions[0]:
        matrices = [matrix[protocol] for matrix in confusions]
        miou = scene_scores(torch.tensor(matrices).sum(0)).miou
        yield f"mIoU, {protocol}, selection={selection}, rooms of all runs", miou


def _has_rooms(results: dict[str, Any]) -> bool:
    return "rooms" in results or results.get("task") == "scene_segment"


def list_job_folders(folder: Path) -> list[Path]:
    """Return the folders of the jobs of a multirun, in the order of their numbers."""
    jobs = (path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml"))
    return sorted(jobs, key=lambda path: (len(path.name), path.name))


def group_runs(folder: Path) -> dict[str, list[Path]]:
    """Return the run folders of a multirun by the options that differ, without repeat options."""
    overrides = {
        run: [str(word) for word in read_config(run / ".hydra" / "overrides.yaml")]
        for run in list_job_folders(folder)
    }
    varied = {
        run: [w for w in words if w.split("=")[0] not in REPEAT_OPTIONS]
        for run, words in overrides.items()
    }
    common = set.intersection(*map(set, varied.values())) if varied else set()
    groups: dict[str, list[Path]] = {}
    for run, words in varied.items():
        name = " ".join(word for word in words if len(varied) == 1 or word not in common)
        groups.setdefault(name, []).extend([run, *sorted(run.glob("seed_*"))])
    return groups
