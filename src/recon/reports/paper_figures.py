"""Pictures of what a run has to show, for paper."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from recon.data.dataset import Cloud
from recon.data.render import render
from recon.reports.colors import REBUILT, VISIBLE, flat, heat, palette
from recon.reports.confusion import draw_confusion
from recon.reports.html_sections import draw_curves
from recon.reports.report_data import Exhibits, Plane

Panel = tuple[str, Float[np.ndarray, "_ 3"], UInt8[np.ndarray, "_ 3"]]
"""A title, and a cloud with its colours."""


def print_exhibits(shown: Exhibits, folder: Path, *, dpi: int = 200) -> list[Path]:
    """Draw all that there is into a folder, one PNG each; return what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def save(figure: Figure, name: str) -> None:
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=dpi)

    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "text.parse_math": False}):
        if shown.curves:
            save(draw_curves(shown.curves), "curves")
        if shown.rebuilt:
            rows = [
                [
                    (shape.name, shape.points, shape.colors),
                    ("visible", shape.visible, flat(len(shape.visible), VISIBLE)),
                    ("rebuilt", *_both(shape.visible, shape.rebuilt)),
                ]
                for shape in shown.rebuilt
            ]
            save(_clouds(rows), "rebuilt")
        if shown.attended:
            rows = [
                [
                    (f"{shape.name}, {query} query", shape.points, heat(weights))
                    for query, weights in shape.weights.items()
                ]
                for shape in shown.attended
            ]
            save(_clouds(rows), "attention")
        if shown.plane is not None:
            save(_plane(shown.plane), "tsne")
    if shown.confusion is not None:
        counts = torch.from_numpy(shown.confusion.counts)
        written.append(folder / "confusion.png")
        draw_confusion(counts, shown.confusion.classes, "", written[-1], dpi=dpi)
    return written


def _both(
    visible: Float[np.ndarray, "v 3"], rebuilt: Float[np.ndarray, "r 3"]
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    colors = np.concatenate([flat(len(visible), VISIBLE), flat(len(rebuilt), REBUILT)])
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
            axes.imshow(render(Cloud(points, colors=colors), size=480))
            axes.set_title(title, fontsize=7)
    return figure


def _plane(plane: Plane) -> Figure:
    """Draw the map of features, a colour for each class."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for label in np.unique(plane.labels).tolist():
        rows = plane.labels == label
        color = palette(np.array([label])) / 255
        name = plane.classes[label] if label >= 0 else "no class"
        across, along = plane.places[rows].T
        axes.scatter(across, -along, s=10, c=color, label=name, linewidths=0)
    axes.axis("off")
    if len(np.unique(plane.labels)) <= 60:
        columns = -(-len(np.unique(plane.labels)) // 20)
        axes.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, frameon=False, fontsize=6
        )
    return figure
