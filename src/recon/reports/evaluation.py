"""Write the results of an evaluation: predictions.csv, tables, results.json and report.html."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from recon.reports.confusion import (
    build_class_table,
    build_score_details,
    build_score_metrics,
    plot_confusion_matrix,
)
from recon.reports.html_sections import Bar, build_bar
from recon.reports.run_reports import NetworkInspection, write_run_results, write_test_report
from recon.tasks.feature_extraction import ExtractedFeatures
from recon.tasks.metrics import ClassificationScores
from recon.utils.printable import format_count


class Evaluation(NamedTuple):
    """Results of an evaluation, with its protocol."""

    name: str
    task: str
    """svm, zero_shot or classify."""
    checkpoint: str
    protocol: dict[str, Any]
    """Settings that enter the fingerprint."""
    fingerprint: str
    classes: list[str]
    predicted: list[str]
    """Predicted class name of each test shape."""
    scores: ClassificationScores | None
    """None if the test shapes have no labels."""
    published: float | str | None


def write_predictions(
    path: Path, evaluation: Evaluation, shapes: ExtractedFeatures, logits: Tensor
) -> None:
    """Write a row for each test shape: id, predicted class, score of that class, true class."""
    predicted, classes = evaluation.predicted, evaluation.classes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "predicted", "score", "class"])
        labels = [classes[row] for row in shapes.labels.tolist()] or [""] * len(predicted)
        scores = logits.amax(1).tolist()
        for name, prediction, score, label in zip(
            shapes.ids, predicted, scores, labels, strict=True
        ):
            writer.writerow([name, prediction, f"{score:.4f}", label])


def write_results(folder: Path, evaluation: Evaluation) -> None:
    """Print the tables and the protocol; write results.json, and confusion.png if labeled."""
    console, scores, classes = Console(), evaluation.scores, evaluation.classes
    details: dict[str, Any] = {}
    if scores is None:
        counts = Counter(evaluation.predicted).most_common()
        table = Table("predicted class", "shapes", title="Predictions (no labels)", box=SIMPLE)
        for name, count in counts:
            table.add_row(escape(name), str(count))
        details["predicted"] = dict(counts)
    else:
        console.print(build_class_table(scores, classes))
        path = folder / "confusion.png"
        plot_confusion_matrix(scores.confusion_matrix, classes, evaluation.name, path)
        title = f"Accuracy in % on {format_count(evaluation.protocol['test_shapes'], 'test shape')}"
        table = Table("metric", "value", "published, paper's protocol", title=title, box=SIMPLE)
        for row in _iter_metric_rows(scores, evaluation.published):
            table.add_row(*row)
        details |= build_score_details(scores, classes)
    console.print(table)
    for key, value in evaluation.protocol.items():
        console.print(f"{key}: {value}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"fingerprint: {evaluation.fingerprint}", highlight=False)
    console.print(f"written to {folder}", soft_wrap=True, highlight=False)
    write_run_results(
        folder,
        None,
        task=evaluation.task,
        checkpoint=evaluation.checkpoint,
        metrics={} if scores is None else build_score_metrics(scores),
        protocol=evaluation.protocol,
        fingerprint=evaluation.fingerprint,
        classes=classes,
        published=evaluation.published,
        **details,
    )


def write_evaluation_report(
    folder: Path, evaluation: Evaluation, inspection: NetworkInspection
) -> None:
    """Write report.html; it shows config.yaml of the same folder."""
    scores, protocol = evaluation.scores, evaluation.protocol
    write_test_report(
        folder,
        "Evaluation report",
        f"{evaluation.checkpoint}, on {format_count(protocol['test_shapes'], 'test shape')}. "
        f"Fingerprint {evaluation.fingerprint}: results with different fingerprints are not "
        "comparable.",
        _build_bars(evaluation),
        scores=scores,
        classes=evaluation.classes,
        inspection=inspection,
        curves={},
        predictor=f"the {protocol['probe']}",
    )


def _iter_metric_rows(
    scores: ClassificationScores, published: float | str | None
) -> Iterator[tuple[str, str, str]]:
    overall = scores.overall_accuracy.format_percent()
    yield "overall accuracy, 95 % interval", overall, str(published or "-")
    yield "mean class accuracy", f"{100 * scores.mean_class_accuracy:.1f}", ""
    for k, value in scores.top_k_accuracy.items():
        if k > 1:
            yield f"top-{k} accuracy", f"{100 * value:.1f}", ""


def _build_bars(evaluation: Evaluation) -> Sequence[Bar]:
    bars: list[Bar] = []
    if (scores := evaluation.scores) is not None:
        bars += [
            build_bar("overall accuracy", scores.overall_accuracy, best=True),
            build_bar("mean class accuracy", scores.mean_class_accuracy),
            *(
                build_bar(f"top-{k} accuracy", value)
                for k, value in scores.top_k_accuracy.items()
                if k > 1
            ),
        ]
    if evaluation.published:
        bars.append(Bar("published, paper's protocol", str(evaluation.published)))
    return bars + [Bar(key, str(value)) for key, value in evaluation.protocol.items()]
