"""One table at the end of a multirun: the mean and deviation over seeds and folds."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

REPEATS = ("seed", "data.fold", "data.episode_seed")
"""Options that repeat a measurement rather than change it."""


def _accuracies(results: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a run's results.json measured, by name."""
    if "overall_accuracy" in results:
        yield "overall accuracy", results["overall_accuracy"]["mean"]
    found = results.get("results", {})
    for name, row in found.items():
        yield f"accuracy, {name}, {results['protocol']}", row["overall_accuracy"]["mean"]


def collect(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Read the runs of a multirun: accuracies by options that are no repeats, then by name."""
    table: dict[str, dict[str, list[float]]] = {}
    for path in sorted(folder.glob("*/results.json")):
        overrides = OmegaConf.load(path.parent / ".hydra" / "overrides.yaml")
        told = [str(word) for word in overrides if str(word).split("=")[0] not in REPEATS]
        rows = table.setdefault(" ".join(told), {})
        for name, value in _accuracies(json.loads(path.read_text())):
            rows.setdefault(name, []).append(100 * value)
    return table


class MultirunTable(Callback):
    """Print what the jobs of a multirun measured, and write it to sweep.json in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table

        folder = Path(config.hydra.sweep.dir)
        if not (found := collect(folder)):
            return
        table = Table("options", "measure", "mean", "std", "runs", box=SIMPLE, title="in %")
        for told, rows in found.items():
            for name, values in rows.items():
                spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
                mean = f"{statistics.mean(values):.1f}"
                table.add_row(told, name, mean, spread, str(len(values)))
        Console().print(table)
        (folder / "sweep.json").write_text(json.dumps(found, indent=1))
