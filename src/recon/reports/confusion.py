"""Tables and pictures of how well classes are told apart."""

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


def count_trained_samples(data: Any, ids: Sequence[str]) -> int:
    """Count tested samples that were trained on: figures of such are no test.

    The columns of a room are named after it, with a number behind a `#`.
    """
    if not isinstance(data, PointCloudDataModule) or not hasattr(data, "dataset"):
        return 0
    trained = {*data.dataset.ids, *(re.sub(r"#\d+$", "", name) for name in data.dataset.ids)}
    return sum(name in trained for name in ids)


def scores_to_dict(scores: ClassificationScores, classes: Sequence[str]) -> dict[str, Any]:
    """Return scores as JSON holds them; classes without a shape have null."""
    shares = [None if share != share else share for share in scores.per_class_accuracy.tolist()]
    return {
        "overall_accuracy": scores.overall_accuracy._asdict(),
        "mean_class_accuracy": scores.mean_class_accuracy,
        "top": {f"top{k}": value for k, value in scores.top_k_accuracy.items()},
        "per_class": dict(zip(classes, shares, strict=True)),
        "confusion": scores.confusion_matrix.tolist(),
    }


def build_class_table(scores: ClassificationScores, classes: Sequence[str]) -> Table:
    """Return a table of the classes that have shapes: how many, how many right, taken for what."""
    table = Table("class", "shapes", "accuracy", "most often taken for", box=SIMPLE)
    for row, name in enumerate(classes):
        counts = scores.confusion_matrix[row]
        if not (shapes := int(counts.sum())):
            continue
        wrong = counts.clone()
        wrong[row] = 0
        other = f"{classes[int(wrong.argmax())]} ({int(wrong.max())})" if wrong.any() else ""
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
    """Draw the share of each class's shapes by predicted class; absent classes are left out."""
    met = torch.nonzero(confusion.sum(0) + confusion.sum(1)).flatten()
    counts = confusion[met][:, met]
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    names, size = [classes[int(row)] for row in met], 2.5 + 0.22 * len(met)
    with mpl.rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="class", title=title)
        if len(names) <= 60:
            for row, column in torch.nonzero(counts).tolist():
                colour = "white" if shares[row, column] > 0.6 else "black"
                text = str(int(counts[row, column]))
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6)
        figure.savefig(path, dpi=dpi)
