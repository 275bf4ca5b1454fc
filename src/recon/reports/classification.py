"""What a test of a classifier found: tables, a confusion matrix, results.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from recon.callbacks.history import get_curves
from recon.data.datamodule import PointCloudDataModule
from recon.reports.confusion import (
    build_class_table,
    count_trained_samples,
    plot_confusion_matrix,
    scores_to_dict,
)
from recon.reports.html_sections import Bar, build_bar
from recon.reports.run_reports import inspect_network, write_test_report
from recon.reports.wandb_media import iter_wandb_runs, log_confusion
from recon.tasks.classify import Classification
from recon.tasks.metrics import ClassificationScores, classification_scores
from recon.utils.atomic_write import write_atomic

BEST_VOTE_LABEL = "best of {} votes, chosen by test labels"


class ClassificationReport(Callback):
    """After a test, print accuracies with their protocol, per class too; write them to `folder`.

    `published` are figures in % to print beside: of one `view`, and `voted`. The page, report.html,
    looks at some tested shapes by `points` each.
    """

    __test__ = False  # no test of pytest's

    def __init__(
        self,
        folder: str | Path,
        *,
        selection: str,
        published: Mapping[str, float | str] | None = None,
        num_points: int = 1024,
    ) -> None:
        self.folder, self.selection, self.num_points = Path(folder), selection, num_points
        self.published = published or {}

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classification)
        data = getattr(trainer, "datamodule", None)
        classes = data.test_dataset.classes if isinstance(data, PointCloudDataModule) else ()
        labels = torch.cat(pl_module.labels)
        found = {
            name: classification_scores(torch.cat(x), labels)
            for name, x in pl_module.test_logits.items()
        }
        table = summarize_votes(found, pl_module.votes)
        seen = count_trained_samples(data, pl_module.ids)
        results = {
            "tested_on_training_shapes": seen,
            "selection": self.selection,
            "test_shapes": len(labels),
            "classes": [*classes],
            "results": {name: scores_to_dict(scores, classes) for name, scores in table.items()},
            "published": dict(self.published),
        }
        write_atomic(self.folder / "results.json", json.dumps(results, indent=1).encode())
        one = table["one view"]
        predicted = torch.cat(pl_module.test_logits["one view"]).argmax(1)
        for run in iter_wandb_runs(trainer):
            log_confusion(run, labels.numpy(), predicted.numpy(), classes)
        title = f"one view, {len(labels)} test shapes"
        plot_confusion_matrix(one.confusion_matrix, classes, title, self.folder / "confusion.png")
        shapes = f"{len(labels)} test shapes" + (f", {seen} of them TRAINED ON" if seen else "")
        self._page(trainer, pl_module, table, classes, shapes)
        self._show(table, build_class_table(one, classes), shapes)

    def _page(
        self,
        trainer: Trainer,
        task: Classification,
        table: Mapping[str, ClassificationScores],
        classes: Sequence[str],
        shapes: str,
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        seen = None
        if isinstance(data, PointCloudDataModule):
            seen = inspect_network(task.model, data, data.test_dataset, self.num_points)
        rows = [
            build_bar(f"overall, {name}", scores.overall_accuracy, best=True)
            for name, scores in table.items()
        ]
        rows += [
            build_bar(f"mean class, {name}", scores.mean_class_accuracy)
            for name, scores in table.items()
        ]
        rows += [Bar(f"published, {name}", str(value)) for name, value in self.published.items()]
        write_test_report(
            self.folder,
            "What this classifier knows",
            f"Tested on {shapes}, eval.selection={self.selection}.",
            rows,
            scores=table["one view"],
            classes=classes,
            inspection=seen,
            curves=get_curves(trainer),
            predictor="the classifier, of one view,",
        )

    def _show(self, table: dict[str, ClassificationScores], by_class: Table, shapes: str) -> None:
        title = f"Accuracy in % on {shapes}, eval.selection={self.selection}"
        told = ["published, paper's protocol"] if self.published else []
        rows = Table("test", "overall", "mean class", *told, title=title, box=SIMPLE)
        for name, scores in table.items():
            known = self.published.get("view" if name == "one view" else "voted", "-")
            beside = [str(known)] if told else []
            rows.add_row(
                name,
                scores.overall_accuracy.format_percent(),
                f"{100 * scores.mean_class_accuracy:.1f}",
                *beside,
            )
        by_class.title = "One view, by class"
        console = Console()
        console.print(by_class)
        console.print(rows)
        console.print(f"written to {self.folder}", soft_wrap=True, highlight=False)


def summarize_votes(
    found: dict[str, ClassificationScores], votes: int
) -> dict[str, ClassificationScores]:
    """Name the one view, the first round of votes, and the best one where there are many."""
    rounds = [scores for name, scores in found.items() if name.startswith("round")]
    table = {"one view": found["one view"]}
    if rounds:
        table[f"one vote of {votes} views"] = rounds[0]
    if len(rounds) > 1:
        best = max(rounds, key=lambda scores: scores.overall_accuracy.mean)
        table[BEST_VOTE_LABEL.format(len(rounds))] = best
    return table
