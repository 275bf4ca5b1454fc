"""Draw the report data of a run as PNG figures for a paper."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from recon.data.dataset import Cloud
from recon.data.render import render_cloud
from recon.reports.colors import (
    RECONSTRUCTED_COLOR,
    VISIBLE_COLOR,
    color_by_class,
    color_by_value,
    uniform_color,
)
from recon.reports.confusion import plot_confusion_matrix
from recon.reports.html_sections import UNLABELED_NAME, plot_curves
from recon.reports.report_data import (
    AttentionMap,
    ReconstructedShape,
    ReportData,
    TSNEEmbedding,
)

Panel = tuple[str, Float[np.ndarray, "_ 3"], UInt8[np.ndarray, "_ 3"]]
"""Title, points and colors of one panel."""
FIGURE_PARTS = {
    "curves": "curves",
    "rebuilt": "reconstructions",
    "attention": "attention_maps",
    "tsne": "tsne",
    "confusion": "confusion_matrix",
}
"""Names of the figures, and the parts of the report data that they show."""
MAX_LEGEND_CLASSES, LEGEND_ROWS = 60, 20
"""Maximum number of classes in a legend, and of rows in each of its columns."""


def write_figures(
    report_data: ReportData,
    folder: Path,
    *,
    dpi: int = 200,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[Path]:
    """Draw each part of the report data as one PNG file; return the paths.

    Parts that the run does not have are skipped. `track` iterates over the names of the figures,
    and may show the progress.
    """
    folder.mkdir(parents=True, exist_ok=True)
    style: Any = {"font.size": 8, "axes.spines.top": False, "text.parse_math": False}
    names = [name for name, field in FIGURE_PARTS.items() if _has_part(report_data, field)]
    paths = [folder / f"{name}.png" for name in names]
    for name in track(names):
        path = folder / f"{name}.png"
        if report_data.confusion_matrix is not None and name == "confusion":
            matrix = report_data.confusion_matrix
            plot_confusion_matrix(
                torch.from_numpy(matrix.counts), matrix.classes, "", path, dpi=dpi
            )
            continue
        with mpl.rc_context(style):
            _draw_part(report_data, name).savefig(path, dpi=dpi)
    return paths


def _has_part(report_data: ReportData, field: str) -> bool:
    part = getattr(report_data, field)
    return part is not None and (field in ("tsne", "confusion_matrix") or bool(part))


def _draw_part(report_data: ReportData, name: str) -> Figure:
    if name == "curves":
        return plot_curves(report_data.curves)
    if name == "tsne" and report_data.tsne is not None:
        return _plot_tsne(report_data.tsne)
    if name == "rebuilt":
        return _plot_clouds([_build_reconstruction_row(s) for s in report_data.reconstructions])
    return _plot_clouds([_build_attention_row(shape) for shape in report_data.attention_maps])


def _build_reconstruction_row(shape: ReconstructedShape) -> list[Panel]:
    visible_colors = uniform_color(len(shape.visible), VISIBLE_COLOR)
    masked_colors = uniform_color(len(shape.reconstructed), RECONSTRUCTED_COLOR)
    points = np.concatenate([shape.visible, shape.reconstructed])
    return [
        (shape.name, shape.points, shape.colors),
        ("visible patches", shape.visible, visible_colors),
        ("reconstruction", points, np.concatenate([visible_colors, masked_colors])),
    ]


def _build_attention_row(shape: AttentionMap) -> list[Panel]:
    return [
        (f"{shape.name}, {query} query", shape.points, color_by_value(weights))
        for query, weights in shape.weights.items()
    ]


def _plot_clouds(rows: Sequence[Sequence[Panel]]) -> Figure:
    """Draw rows of clouds, viewed from the front, the top and the right."""
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.1 * columns, 2.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, (title, points, colors) in zip(axes_row, row, strict=False):
            axes.imshow(render_cloud(Cloud(points, colors=colors), size=480))
            axes.set_title(title, fontsize=7)
    return figure


def _plot_tsne(embedding: TSNEEmbedding) -> Figure:
    """Draw a scatter plot with one color per class."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    labels = np.unique(embedding.labels).tolist()
    for label in labels:
        rows = embedding.labels == label
        color = color_by_class(np.array([label])) / 255
        name = embedding.classes[label] if label >= 0 else UNLABELED_NAME
        x, y = embedding.coordinates[rows].T
        axes.scatter(x, -y, s=10, c=color, label=name, linewidths=0)
    axes.axis("off")
    if len(labels) <= MAX_LEGEND_CLASSES:
        columns = -(-len(labels) // LEGEND_ROWS)
        axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, frameon=False, fontsize=6
        )
    return figure
