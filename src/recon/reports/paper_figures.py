"""Pictures of what a run has to show, for paper."""

from collections.abc import Sequence
from pathlib import Path

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
from recon.reports.html_sections import plot_curves
from recon.reports.report_data import ReportData, TSNEEmbedding

Panel = tuple[str, Float[np.ndarray, "_ 3"], UInt8[np.ndarray, "_ 3"]]
"""A title, and a cloud with its colours."""


def write_figures(report_data: ReportData, folder: Path, *, dpi: int = 200) -> list[Path]:
    """Draw all that there is into a folder, one PNG each; return what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def save(figure: Figure, name: str) -> None:
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=dpi)

    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "text.parse_math": False}):
        if report_data.curves:
            save(plot_curves(report_data.curves), "curves")
        if report_data.reconstructions:
            rows = [
                [
                    (shape.name, shape.points, shape.colors),
                    ("visible", shape.visible, uniform_color(len(shape.visible), VISIBLE_COLOR)),
                    ("rebuilt", *_both(shape.visible, shape.reconstructed)),
                ]
                for shape in report_data.reconstructions
            ]
            save(_clouds(rows), "rebuilt")
        if report_data.attention_maps:
            rows = [
                [
                    (f"{shape.name}, {query} query", shape.points, color_by_value(weights))
                    for query, weights in shape.weights.items()
                ]
                for shape in report_data.attention_maps
            ]
            save(_clouds(rows), "attention")
        if report_data.tsne is not None:
            save(_plane(report_data.tsne), "tsne")
    if report_data.confusion_matrix is not None:
        counts = torch.from_numpy(report_data.confusion_matrix.counts)
        written.append(folder / "confusion.png")
        plot_confusion_matrix(
            counts, report_data.confusion_matrix.classes, "", written[-1], dpi=dpi
        )
    return written


def _both(
    visible: Float[np.ndarray, "v 3"], rebuilt: Float[np.ndarray, "r 3"]
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    colors = np.concatenate(
        [
            uniform_color(len(visible), VISIBLE_COLOR),
            uniform_color(len(rebuilt), RECONSTRUCTED_COLOR),
        ]
    )
    return np.concatenate([visible, rebuilt]), colors


def _clouds(rows: Sequence[Sequence[Panel]]) -> Figure:
    """Draw rows of clouds, seen from the front, above and to the right."""
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.1 * columns, 2.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for line, row in zip(grid, rows, strict=True):
        for axes, (title, points, colors) in zip(line, row, strict=False):
            axes.imshow(render_cloud(Cloud(points, colors=colors), size=480))
            axes.set_title(title, fontsize=7)
    return figure


def _plane(plane: TSNEEmbedding) -> Figure:
    """Draw the map of features, a colour for each class."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label in np.unique(plane.labels).tolist():
        rows = plane.labels == label
        color = color_by_class(np.array([label])) / 255
        name = plane.classes[label] if label >= 0 else "no class"
        across, along = plane.coordinates[rows].T
        axes.scatter(across, -along, s=10, c=color, label=name, linewidths=0)
    axes.axis("off")
    if len(np.unique(plane.labels)) <= 60:
        columns = -(-len(np.unique(plane.labels)) // 20)
        axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, frameon=False, fontsize=6
        )
    return figure
