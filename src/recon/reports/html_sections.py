"""Build the sections of a report: metrics, training curves, attention, t-SNE, confusion matrix."""

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

UNLABELED_NAME = "unlabeled"
"""Class name shown for shapes without a label."""


METRIC_LABELS = {"accuracy": "accuracy (fraction)", "miou": "mIoU (fraction)", "loss": "loss"}
"""Labels of axes, by a word in the name of a logged metric; metrics without `/` are losses."""


class Bar(NamedTuple):
    """One row of a table of metrics, with a bar if `share` is set."""

    name: str
    value: str
    share: float | None = None
    """Length of the bar, in [0, 1]."""
    low: float | None = None
    high: float | None = None
    """Confidence interval drawn on the bar, in [0, 1]."""
    remark: str = ""
    best: bool = False
    """Whether the row is highlighted."""


def build_bar(
    name: str, value: ConfidenceInterval | float, *, remark: str = "", best: bool = False
) -> Bar:
    """Return the row of a fraction, written in %, with its confidence interval if it has one."""
    if isinstance(value, ConfidenceInterval):
        return Bar(name, value.format_percent(), *value, remark, best)
    return Bar(name, f"{100 * value:.1f}", value, remark=remark, best=best)


def build_bar_table(title: str, note: str, rows: Sequence[Bar]) -> Section:
    """Build a section with a table of metrics and bars."""
    return Section("bars", title, note, {"rows": rows})


def build_class_bars(shares: Mapping[str, float], measure: str) -> Section:
    """Build a section with one metric per class, without classes whose metric is NaN."""
    rows = [build_bar(name, share) for name, share in shares.items() if share == share]
    return build_bar_table(f"{measure} by class (%)", "Computed on the test data.", rows)


def build_introspection_sections(report_data: ReportData, *, subject: str) -> list[Section | None]:
    """Build the reconstruction, attention and t-SNE sections; `subject` names the shapes shown."""
    return [
        _build_reconstruction_section(report_data.reconstructions, subject),
        _build_attention_section(report_data.attention_maps, subject),
        _build_tsne_section(report_data.tsne, subject),
    ]


def build_curve_sections(report_data: ReportData, *, predictor: str = "") -> list[Section | None]:
    """Build the training curves and the confusion matrix; `predictor` names the classifier."""
    return [
        _build_curves_section(report_data.curves),
        _build_confusion_section(report_data.confusion_matrix, predictor),
    ]


def plot_curves(curves: Mapping[str, Mapping[int, float]], *, columns: int = 4) -> Figure:
    """Plot each logged value over optimizer steps, raw and smoothed."""
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
        axes.set(xlabel="step", ylabel=_label_metric(name))
        axes.spines["right"].set_visible(False)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    return figure


def _label_metric(name: str) -> str:
    """Return the label of a metric's axis: the quantity, with its unit."""
    quantity = name.rpartition("/")[2]
    for word, label in METRIC_LABELS.items():
        if word in quantity:
            return label
    return "loss" if "/" not in name else quantity.replace("_", " ")


def _build_curves_section(curves: Mapping[str, Mapping[int, float]]) -> Section | None:
    if not curves:
        return None
    style: Any = {"svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style | {"axes.spines.top": False}):
        buffer = io.StringIO()
        plot_curves(curves).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    note = "Logged values over optimizer steps. The thick line is the running mean."
    return Section("curves", "Training curves", note, {"svg": text[text.index("<svg") :]})


def _build_reconstruction_section(
    shapes: Sequence[ReconstructedShape], subject: str
) -> Section | None:
    def build_group(shape: ReconstructedShape) -> list[GalleryItem]:
        visible_colors = uniform_color(len(shape.visible), VISIBLE_COLOR)
        masked_colors = uniform_color(len(shape.reconstructed), RECONSTRUCTED_COLOR)
        points = np.concatenate([shape.visible, shape.reconstructed])
        clouds = {
            "original": (shape.points, shape.colors),
            "visible patches": (shape.visible, visible_colors),
            "reconstruction": (points, np.concatenate([visible_colors, masked_colors])),
        }
        return [
            GalleryItem(f"{shape.name}: {title}", encode_cloud(*cloud))
            for title, cloud in clouds.items()
        ]

    note = (
        f"{subject}: the original, the visible patches (the student's input), and the visible "
        "patches with the reconstructed masked patches in orange. Drag to rotate; the three clouds "
        "of a shape rotate together."
    )
    return build_gallery("Masked reconstruction", note, [build_group(shape) for shape in shapes])


def _build_attention_section(shapes: Sequence[AttentionMap], subject: str) -> Section | None:
    note = (
        f"{subject}: attention of each query to the points in the last block, averaged over heads, "
        "from gray (zero) to dark red (maximum of that query). Drag to rotate."
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
    return build_gallery("Query attention", note, groups, columns=max(columns, 3), pixels=340)


def _build_tsne_section(embedding: TSNEEmbedding | None, subject: str) -> Section | None:
    if embedding is None:
        return None
    present: list[int] = [row for row in np.unique(embedding.labels).tolist() if row >= 0]
    colors = [to_hex(color) for color in color_by_class(embedding.labels) / 255]
    dots = []
    for (x, y), label, name, color in zip(
        embedding.coordinates, embedding.labels.tolist(), embedding.names, colors, strict=True
    ):
        class_name = embedding.classes[label] if label >= 0 else UNLABELED_NAME
        row = present.index(label) if label >= 0 else -1
        dots.append(
            {
                "x": f"{100 * x:.2f}", "y": f"{100 * y:.2f}", "color": color, "row": row,
                "name": f"{name}, {class_name}",
            }
        )  # fmt: skip
    class_colors = color_by_class(np.array(present, dtype=int)) / 255
    legend = [
        (embedding.classes[label], to_hex(color))
        for label, color in zip(present, class_colors, strict=True)
    ]
    note = (
        f"{subject}, one dot per shape: t-SNE of the standardized features. Nearby dots have "
        "similar features; distances between far dots mean little. Hover over a dot for its name, "
        "over a class to highlight it."
    )
    return Section("tsne", "t-SNE", note, {"dots": dots, "legend": legend})


def _build_confusion_section(matrix: ConfusionMatrix | None, predictor: str) -> Section | None:
    if matrix is None:
        return None
    present = np.flatnonzero(matrix.counts.sum(0) + matrix.counts.sum(1))
    values = {
        "counts": matrix.counts[np.ix_(present, present)].tolist(),
        "classes": [matrix.classes[row] for row in present.tolist()],
    }
    note = f"Rows: true class. Columns: class predicted by {predictor or 'the classifier'}."
    return Section("confusion", "Confusion matrix", note, values)
