"""What a test of a classifier found: a table, results.json."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from recon.data.datamodule import PointCloudDataModule
from recon.tasks.classify import Classification
from recon.tasks.scores import Scores, score

BEST = "best of {} votes, chosen by test labels"


class TestResults(Callback):
    """After a test, print accuracies with their protocol and write results.json into `folder`."""

    __test__ = False  # no test of pytest's

    def __init__(self, folder: str | Path, *, protocol: str) -> None:
        self.folder, self.protocol = Path(folder), protocol

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classification)
        data = getattr(trainer, "datamodule", None)
        classes = data.test_dataset.classes if isinstance(data, PointCloudDataModule) else ()
        labels = torch.cat(pl_module.labels)
        found = {name: score(torch.cat(x), labels) for name, x in pl_module.tested.items()}
        table = one_round(found, pl_module.votes)
        (self.folder / "results.json").write_text(
            json.dumps(_plain(table, list(classes), self.protocol, len(labels)), indent=1)
        )
        _show(table, self.protocol, len(labels), len(classes), self.folder)


def one_round(found: dict[str, Scores], votes: int) -> dict[str, Scores]:
    """Name the one view, the first round of votes, and the best one where there are many."""
    rounds = [scores for name, scores in found.items() if name.startswith("round")]
    table = {"one view": found["one view"]}
    if rounds:
        table[f"one vote of {votes} views"] = rounds[0]
    if len(rounds) > 1:
        best = max(rounds, key=lambda scores: scores.overall.mean)
        table[BEST.format(len(rounds))] = best
    return table


def _plain(
    table: dict[str, Scores], classes: list[str], protocol: str, shapes: int
) -> dict[str, Any]:
    def row(scores: Scores) -> dict[str, Any]:
        return {
            "overall_accuracy": scores.overall._asdict(),
            "mean_class_accuracy": scores.mean_class,
            "top": {f"top{k}": value for k, value in scores.top.items()},
            "per_class": dict(zip(classes, scores.per_class.tolist(), strict=True)),
            "confusion": scores.confusion.tolist(),
        }

    rows = {name: row(scores) for name, scores in table.items()}
    return {"protocol": protocol, "test_shapes": shapes, "classes": classes, "results": rows}


def _show(table: dict[str, Scores], protocol: str, shapes: int, classes: int, folder: Path) -> None:
    title = f"Accuracy in % on {shapes} test shapes of {classes} classes, eval.protocol={protocol}"
    rows = Table("test", "overall", "mean class", title=title, box=SIMPLE)
    for name, scores in table.items():
        rows.add_row(name, scores.overall.percent(), f"{100 * scores.mean_class:.1f}")
    console = Console()
    console.print(rows)
    console.print(f"written to {folder}", soft_wrap=True, highlight=False)
