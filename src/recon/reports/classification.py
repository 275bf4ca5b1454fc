"""Report a classifier's test: accuracy tables, confusion matrix, results.json, report.html."""

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
    build_score_details,
    build_score_metrics,
    count_trained_samples,
    plot_confusion_matrix,
)
from recon.reports.html_page import get_run_name
from recon.reports.html_sections import Bar, build_bar
from recon.reports.run_reports import inspect_network, write_run_results, write_test_report
from recon.reports.wandb_media import iter_wandb_runs, log_confusion
from recon.tasks.classify import Classification
from recon.tasks.metrics import ClassificationScores, classification_scores
from recon.utils.printable import format_count
from recon.utils.results_file import ProtocolResults, combine_protocols

# Keys of results.json; `_label_protocol` returns their printed names.
SINGLE_VIEW_KEY, VOTE_KEY = "one view", "one vote of {} views"
BEST_VOTE_KEY = "best of {} votes, chosen by test labels"
VARIANTS = ("", "voted", "best_vote")
"""Suffixes of the names of their metrics, in the order of `summarize_votes`."""


class ClassificationReport(Callback):
    """After a test, print overall and per-class accuracy; write them and plots into `folder`.

    `published` are accuracies in % for comparison, by the keys `view` and `voted`. report.html
    shows test shapes with `num_points` points each.
    """

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
        all_scores = {
            name: classification_scores(torch.cat(logits), labels)
            for name, logits in pl_module.test_logits.items()
        }
        scores = summarize_votes(all_scores, pl_module.votes)
        num_trained = count_trained_samples(data, pl_module.ids)
        self._write_results(trainer, scores, classes, len(labels), num_trained, pl_module.votes)
        single_view = scores[SINGLE_VIEW_KEY]
        predicted = torch.cat(pl_module.test_logits[SINGLE_VIEW_KEY]).argmax(1)
        for run in iter_wandb_runs(trainer):
            log_confusion(run, labels.numpy(), predicted.numpy(), classes)
        shapes = format_count(len(labels), "test shape")
        title = f"single view, {shapes}"
        plot_confusion_matrix(
            single_view.confusion_matrix, classes, title, self.folder / "confusion.png"
        )
        shapes += f", {num_trained} of them TRAINED ON" if num_trained else ""
        self._write_page(trainer, pl_module, scores, classes, shapes)
        self._print_tables(scores, build_class_table(single_view, classes), shapes, pl_module.votes)

    def _write_results(
        self,
        trainer: Trainer,
        scores: Mapping[str, ClassificationScores],
        classes: Sequence[str],
        num_tested: int,
        num_trained: int,
        votes: int,
    ) -> None:
        variants = dict(zip(scores, VARIANTS, strict=False))
        metrics, protocols = combine_protocols(
            [
                ProtocolResults(
                    name,
                    variants[name],
                    build_score_metrics(row),
                    build_score_details(row, classes),
                )
                for name, row in scores.items()
            ]
        )
        write_run_results(
            self.folder,
            trainer,
            task="classify",
            metrics=metrics,
            protocol={
                "selection": self.selection,
                "test_shapes": num_tested,
                "tested_on_training_shapes": num_trained,
            },
            votes=max(votes, 1),
            published=dict(self.published),
            classes=[*classes],
            protocols=protocols,
        )

    def _write_page(
        self,
        trainer: Trainer,
        task: Classification,
        scores: Mapping[str, ClassificationScores],
        classes: Sequence[str],
        shapes: str,
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        inspection = None
        if isinstance(data, PointCloudDataModule):
            inspection = inspect_network(task.model, data, data.test_dataset, self.num_points)
        labels = {name: _label_protocol(name, task.votes) for name in scores}
        rows = [
            build_bar(f"overall accuracy, {labels[name]}", row.overall_accuracy, best=True)
            for name, row in scores.items()
        ]
        rows += [
            build_bar(f"mean class accuracy, {labels[name]}", row.mean_class_accuracy)
            for name, row in scores.items()
        ]
        rows += [Bar(f"published, {name}", str(value)) for name, value in self.published.items()]
        write_test_report(
            self.folder,
            f"Classification report: {get_run_name(self.folder)}",
            f"{shapes}, eval.selection={self.selection}.",
            rows,
            scores=scores[SINGLE_VIEW_KEY],
            classes=classes,
            inspection=inspection,
            curves=get_curves(trainer),
            predictor="the classifier from a single view",
        )

    def _print_tables(
        self,
        scores: Mapping[str, ClassificationScores],
        class_table: Table,
        shapes: str,
        votes: int,
    ) -> None:
        title = f"Accuracy in % on {shapes}, eval.selection={self.selection}"
        published_heading = ["published, paper's protocol"] if self.published else []
        table = Table("protocol", "overall", "mean class", *published_heading, box=SIMPLE)
        table.title = title
        for name, row in scores.items():
            key = "view" if name == SINGLE_VIEW_KEY else "voted"
            published = [str(self.published.get(key, "-"))] if self.published else []
            table.add_row(
                _label_protocol(name, votes),
                row.overall_accuracy.format_percent(),
                f"{100 * row.mean_class_accuracy:.1f}",
                *published,
            )
        class_table.title = "Accuracy in % by class, single view"
        console = Console()
        console.print(class_table)
        console.print(table)
        console.print(f"written to {self.folder}", soft_wrap=True, highlight=False)


def summarize_votes(
    scores: dict[str, ClassificationScores], votes: int
) -> dict[str, ClassificationScores]:
    """Return the scores of the single view, the first vote, and the best of several votes."""
    vote_scores = [row for name, row in scores.items() if name.startswith("round")]
    summary = {SINGLE_VIEW_KEY: scores[SINGLE_VIEW_KEY]}
    if vote_scores:
        summary[VOTE_KEY.format(votes)] = vote_scores[0]
    if len(vote_scores) > 1:
        best = max(vote_scores, key=lambda row: row.overall_accuracy.mean)
        summary[BEST_VOTE_KEY.format(len(vote_scores))] = best
    return summary


def _label_protocol(key: str, votes: int) -> str:
    """Return the printed name of a test protocol by its key in results.json."""
    labels = {SINGLE_VIEW_KEY: "single view", VOTE_KEY.format(votes): f"{votes}-view voting"}
    return labels.get(key, key)
