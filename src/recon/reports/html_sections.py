"""Sections of a page about what a run has to show."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from recon.reports.colors import (
    RECONSTRUCTED_COLOR,
    VISIBLE_COLOR,
    color_by_class,
    color_by_value,
    uniform_color,
)
from recon.reports.html_page import GalleryItem, Section, build_gallery, encode_cloud
from recon.reports.report_data import (
    AttentionMap,
    ConfusionMatrix,
    ReconstructedShape,
    ReportData,
    TSNEEmbedding,
)
from recon.tasks.linear_probe import ConfidenceInterval

SHOWN_POINTS = 2048


class Bar(NamedTuple):
    """One figure of a table, and where it lies between 0 and 1."""

    name: str
    value: str
    share: float | None = None
    low: float | None = None
    high: float | None = None
    remark: str = ""
    best: bool = False


def build_bar(
    name: str, value: ConfidenceInterval | float, *, remark: str = "", best: bool = False
) -> Bar:
    """Return a row for a fraction, in %, with its interval where it has one."""
    if isinstance(value, ConfidenceInterval):
        return Bar(name, value.format_percent(), *value, remark, best)
    return Bar(name, f"{100 * value:.1f}", value, remark=remark, best=best)


def build_bar_table(title: str, note: str, rows: Sequence[Bar]) -> Section:
    """Show figures as a table with bars."""
    return Section("bars", title, note, {"rows": rows})


def build_class_bars(shares: Mapping[str, float], measure: str) -> Section:
    """Show a figure for each class; classes that have none are left out."""
    rows = [build_bar(name, share) for name, share in shares.items() if share == share]
    return build_bar_table(f"{measure} by class", "In %, on the tested shapes.", rows)


def build_introspection_sections(report_data: ReportData, *, subject: str) -> list[Section | None]:
    """Show what was rebuilt, attended to, and how features lie; `of` says of which shapes."""
    return [
        _rebuilt(report_data.reconstructions, subject),
        _attended(report_data.attention_maps, subject),
        _plane(report_data.tsne, subject),
    ]


def build_curve_sections(report_data: ReportData, *, predictor: str = "") -> list[Section | None]:
    """Show curves and what was taken for what; `says` names who predicted."""
    return [_curves(report_data.curves), _confusion(report_data.confusion_matrix, predictor)]


def plot_curves(curves: Mapping[str, Mapping[int, float]], *, columns: int = 4) -> Figure:
    """Draw each value over the steps, raw and smoothed."""
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, (name, points) in zip(grid, curves.items(), strict=False):
        steps, values = np.array([*points.items()]).T
        window = max(1, len(values) // 30)
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        marker = "o" if len(values) < 3 else None
        axes.plot(steps, values, color="#9db8de", linewidth=0.6)
        axes.plot(steps[window - 1 :], smooth, color="#e8743b", linewidth=1.6, marker=marker)
        axes.set_title(name)
        if "/" not in name and 0 < 10 * values.min() < values.max():  # a loss
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.spines["right"].set_visible(False)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    return figure


def _curves(curves: Mapping[str, Mapping[int, float]]) -> Section | None:
    if not curves:
        return None
    style: Any = {"svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style | {"axes.spines.top": False}):
        buffer = io.StringIO()
        plot_curves(curves).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    note = "Each value over the optimizer's steps; the thick line is the running mean."
    return Section("curves", "How it learned", note, {"svg": text[text.index("<svg") :]})


def _rebuilt(shapes: Sequence[ReconstructedShape], of: str) -> Section | None:
    def views(shape: ReconstructedShape) -> list[GalleryItem]:
        seen = uniform_color(len(shape.visible), VISIBLE_COLOR)
        both = np.concatenate([shape.visible, shape.reconstructed])
        colors = np.concatenate(
            [seen, uniform_color(len(shape.reconstructed), RECONSTRUCTED_COLOR)]
        )
        return [
            GalleryItem(f"{shape.name}: original", encode_cloud(shape.points, shape.colors)),
            GalleryItem(f"{shape.name}: what the student sees", encode_cloud(shape.visible, seen)),
            GalleryItem(f"{shape.name}: rebuilt", encode_cloud(both, colors)),
        ]

    note = (
        f"{of}: as they are, the patches the student saw, and with the hidden patches it rebuilt "
        "in orange. Drag to turn; the three turn together."
    )
    return build_gallery("Rebuilt from a part", note, [views(shape) for shape in shapes])


def _attended(shapes: Sequence[AttentionMap], of: str) -> Section | None:
    note = (
        f"{of}: which points each query attends to in the last block, mean of its heads, from grey "
        "(none) to dark red (most of that query). Drag to turn."
    )
    groups = [
        [
            GalleryItem(
                f"{shape.name}: {query} query", encode_cloud(shape.points, color_by_value(weights))
            )
            for query, weights in shape.weights.items()
        ]
        for shape in shapes
    ]
    columns = max((len(group) for group in groups), default=1)
    return build_gallery(
        "What the queries look at", note, groups, columns=max(columns, 3), pixels=340
    )


def _plane(plane: TSNEEmbedding | None, of: str) -> Section | None:
    if plane is None:
        return None
    present: list[int] = [row for row in np.unique(plane.labels).tolist() if row >= 0]
    colors = [to_hex(color) for color in color_by_class(plane.labels) / 255]
    dots = []
    for (x, y), label, name, color in zip(
        plane.coordinates, plane.labels.tolist(), plane.names, colors, strict=True
    ):
        known = plane.classes[label] if label >= 0 else "no class"
        row = present.index(label) if label >= 0 else -1
        dots.append(
            {
                "x": f"{100 * x:.2f}", "y": f"{100 * y:.2f}", "color": color, "row": row,
                "name": f"{name}, {known}",
            }
        )  # fmt: skip
    named = color_by_class(np.array(present, dtype=int)) / 255
    legend = [
        (plane.classes[label], to_hex(color)) for label, color in zip(present, named, strict=True)
    ]
    note = (
        f"{of}, each a dot: t-SNE of the standardised features. Near dots are alike to the "
        "network; distances between far ones mean little. Point at a dot for its name, at a class "
        "to see it alone."
    )
    values = {"dots": dots, "legend": legend}
    return Section("tsne", "Features in a plane", note, values)


def _confusion(found: ConfusionMatrix | None, says: str) -> Section | None:
    if found is None:
        return None
    met = np.flatnonzero(found.counts.sum(0) + found.counts.sum(1))
    values = {
        "counts": found.counts[np.ix_(met, met)].tolist(),
        "classes": [found.classes[row] for row in met.tolist()],
    }
    note = f"Rows: the true class, columns: what {says or 'the classifier'} says."
    return Section("confusion", "Which classes are taken for which", note, values)
