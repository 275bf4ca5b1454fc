"""Tabulate per-class accuracies and plot confusion matrices."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from recon.data.datamodule import PointCloudDataModule
from recon.tasks.metrics import ClassificationScores
from recon.utils.results_file import build_metric

MAX_ANNOTATED_CLASSES = 60
"""Maximum number of classes for which counts are written into the plot."""


def count_trained_samples(data: Any, ids: Sequence[str]) -> int:
    """Count test samples that are also training samples: their accuracy is too high.

    Blocks of a room have the id of the room, followed by `#` and a number.
    """
    if not isinstance(data, PointCloudDataModule) or not hasattr(data, "dataset"):
        return 0
    train_ids = {*data.dataset.ids, *(re.sub(r"#\d+$", "", name) for name in data.dataset.ids)}
    return sum(name in train_ids for name in ids)


def build_score_metrics(scores: ClassificationScores) -> dict[str, dict[str, Any]]:
    """Return accuracies as metrics of results.json."""
    top_k = {f"top_{k}_accuracy": value for k, value in scores.top_k_accuracy.items() if k > 1}
    return {
        "overall_accuracy": build_metric(scores.overall_accuracy),
        "mean_class_accuracy": build_metric(scores.mean_class_accuracy),
        **{name: build_metric(value) for name, value in top_k.items()},
    }


def build_score_details(scores: ClassificationScores, classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracies by class and the confusion matrix, for results.json.

    Classes without test shapes are null.
    """
    per_class = [None if value != value else value for value in scores.per_class_accuracy.tolist()]
    return {
        "per_class": dict(zip(classes, per_class, strict=True)),
        "confusion": scores.confusion_matrix.tolist(),
    }


def build_class_table(scores: ClassificationScores, classes: Sequence[str]) -> Table:
    """Return a table with the shapes, accuracy and most frequent error of each class."""
    table = Table("class", "shapes", "accuracy", "most often confused with", box=SIMPLE)
    for row, name in enumerate(classes):
        counts = scores.confusion_matrix[row]
        if not (shapes := int(counts.sum())):
            continue
        errors = counts.clone()
        errors[row] = 0
        other = f"{classes[int(errors.argmax())]} ({int(errors.max())})" if errors.any() else ""
        name, other = escape(name), escape(other)
        table.add_row(name, str(shapes), f"{100 * int(counts[row]) / shapes:.1f}", other)
    return table


def plot_confusion_matrix(
    confusion: Int[Tensor, "c c"],
    classes: Sequence[str],
    title: str,
    path: Path,
    *,
    dpi: int = 120,
) -> None:
    """Plot the confusion matrix, normalized by row, without classes that do not occur."""
    present = torch.nonzero(confusion.sum(0) + confusion.sum(1)).flatten()
    counts = confusion[present][:, present]
    fractions = counts / counts.sum(1, keepdim=True).clamp(min=1)
    names, size = [classes[int(row)] for row in present], 2.5 + 0.22 * len(present)
    with mpl.rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
        if len(names) <= MAX_ANNOTATED_CLASSES:
            for row, column in torch.nonzero(counts).tolist():
                color = "white" if fractions[row, column] > 0.6 else "black"
                text = str(int(counts[row, column]))
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=6)
        figure.savefig(path, dpi=dpi)
