"""One table at the end of many runs: the mean and deviation over seeds and folds."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

REPEATS = ("seed", "seeds", "data.fold", "data.episode_seed", "data.test_area")
"""Options that repeat a measurement rather than change it."""

Measured = dict[str, dict[str, list[float]]]
"""Accuracies in %, by the options that were measured, then by name."""


def _accuracies(results: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a run's results.json measured, by name."""
    if "overall_accuracy" in results:
        yield "overall accuracy", results["overall_accuracy"]["mean"]
    if "svm" in results:  # of pretraining on the embedded data
        yield "linear SVM", results["svm"]["pretrained"][0]
    if results.get("zero_shot") is not None:
        yield "zero-shot", results["zero_shot"]
    for name in ("instance_miou", "class_miou"):
        if name in results:
            yield f"{name}, {results['protocol']}", results[name]
    for name, row in results.get("results", {}).items():
        if "miou" in row:
            yield f"mIoU, {name}, {results['protocol']}", row["miou"]
        yield f"accuracy, {name}, {results['protocol']}", row["overall_accuracy"]["mean"]


def collect(runs: Mapping[str, Sequence[Path]]) -> Measured:
    """Read the results of runs, by what they measured; those without results are left out."""
    table: Measured = {}
    for told, folders in runs.items():
        paths = [folder / "results.json" for folder in folders]
        found = [json.loads(path.read_text()) for path in paths if path.is_file()]
        for results in found:
            rows = table.setdefault(told, {})
            for name, value in _accuracies(results):
                rows.setdefault(name, []).append(100 * value)
        for name, value in _together(found):
            table[told][name] = [100 * value]
    return table


def _together(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield the mIoU of the rooms of several runs together, where each tested other rooms."""
    rooms = [name for results in found for name in results.get("ids", ())]
    kinds = found[0].get("results", {}) if len(found) > 1 and "rooms" in found[0] else {}
    if not kinds or len(set(rooms)) < len(rooms):
        return
    import torch

    from recon.tasks.iou import scene_scores

    for kind in kinds:
        counts = torch.tensor([results["results"][kind]["confusion"] for results in found]).sum(0)
        yield f"mIoU, {kind}, {found[0]['protocol']}, rooms of all runs", scene_scores(counts).miou


def jobs(folder: Path) -> dict[str, list[Path]]:
    """Return the runs of a multirun by their options, those left out that are repeats."""
    found: dict[str, list[Path]] = {}
    numbered = (path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml"))
    for run in sorted(numbered, key=lambda path: (len(path.name), path.name)):
        told = [str(word) for word in OmegaConf.load(run / ".hydra" / "overrides.yaml")]
        kept = [word for word in told if word.split("=")[0] not in REPEATS]
        found.setdefault(" ".join(kept), []).extend([run, *sorted(run.glob("seed_*"))])
    return found


def show(found: Measured, folder: Path) -> None:
    """Print mean and deviation of what runs measured, and write all of it to sweep.json."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    if not found:
        return
    table = Table("options", "measure", "mean", "std", "runs", box=SIMPLE, title="in %")
    for told, rows in found.items():
        for name, values in rows.items():
            spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
            mean = f"{statistics.mean(values):.1f}"
            table.add_row(told, name, mean, spread, str(len(values)))
    Console().print(table)
    (folder / "sweep.json").write_text(json.dumps(found, indent=1))


class MultirunTable(Callback):
    """Print what the jobs of a multirun measured, and write it to sweep.json in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        show(collect(jobs(folder)), folder)
