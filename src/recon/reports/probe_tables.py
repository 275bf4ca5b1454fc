"""Tabulate linear-probe and zero-shot accuracies: HTML section, printed table, results.json."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from recon.data.datasets.furniture import Furniture
from recon.reports.html_page import Section
from recon.reports.html_sections import Bar, build_bar, build_bar_table
from recon.tasks.linear_probe import ProbeResults
from recon.utils.results_file import build_metric

FEATURE_TITLES = {
    "pretrained": "pretrained",
    "untrained": "random init",
    "calibrated": "random init, recalibrated BatchNorm",
    "descriptor": "shape descriptor",
}
"""Printed names of the features, by their keys in `ProbeResults`."""
PROTOCOL = {
    "probe": "linear SVM on frozen features of the training split",
    "hyperparameters": "scaling and C by cross-validation on the training split",
    "zero_shot": "cosine of projected text queries and text features of class names",
    "interval": "95 % bootstrap over test shapes",
    "views": 1,
}
"""Protocol of results.json."""
PROBE_NOTE = (
    "Brackets are 95 % bootstrap intervals over the test shapes; they are wide because "
    "there are few shapes. Random init: the same network before the first step. Recalibrated "
    "BatchNorm: its BatchNorm statistics are measured on the training shapes; no weights are "
    "learned. Shape descriptor: D2 histogram and bounding box."
)


def build_probe_section(results: ProbeResults, test: Furniture) -> Section:
    """Build a section with the accuracies of pretrained features and of all baselines."""
    rows = [
        build_bar(
            f"linear SVM, {FEATURE_TITLES[name]}",
            row.accuracy,
            remark=row.hyperparameters,
            best=name == "pretrained",
        )
        for name, row in results.svm.items()
    ]
    rows += [
        Bar(
            f"difference to {FEATURE_TITLES[name]}, paired by shape",
            results.paired_differences[name].format_percent("+"),
        )
        for name in ("untrained", "calibrated")
    ]
    rows += [
        build_bar(
            f"zero-shot by class names, {FEATURE_TITLES[name]}",
            accuracy,
            best=name == "pretrained",
        )
        for name, accuracy in results.zero_shot.items()
    ]
    note = (
        f"Accuracy in % on {len(test)} test shapes of {len(test.classes)} classes, one seed, one "
        "view. Protocol of all rows: a linear SVM on frozen features of the training split. "
        "Feature scaling and C are chosen by cross-validation on the training split, with "
        "near-duplicate families kept in one fold. The test split is evaluated once. "
        f"{PROBE_NOTE}"
    )
    title = "Linear probe and zero-shot" if results.zero_shot else "Linear probe"
    return build_bar_table(title, note, rows)


def print_probe_table(console: Console, results: ProbeResults, *, num_classes: int) -> None:
    """Print the accuracy of each kind of features, and the gain of the pretrained ones over it."""
    count = len(results.svm["pretrained"].predicted)
    table = Table(
        title=f"Accuracy in % on {count} test shapes of {num_classes} classes, one seed, one view",
        caption=PROBE_NOTE,
        caption_justify="left",
        box=SIMPLE,
        padding=0,
    )
    table.add_column("features")
    for heading in ("linear SVM", "difference, paired", "zero-shot"):
        table.add_column(heading, justify="right")
    for name, row in results.svm.items():
        difference, zero_shot = results.paired_differences.get(name), results.zero_shot.get(name)
        table.add_row(
            FEATURE_TITLES[name],
            row.accuracy.format_percent(),
            difference and difference.format_percent("+"),
            zero_shot and zero_shot.format_percent(),
            style="bold" if name == "pretrained" else "",
        )
    console.print(table)


def build_feature_metrics(results: ProbeResults, name: str) -> dict[str, dict[str, Any]]:
    """Return the accuracies of one kind of features as metrics of results.json."""
    metrics = {"linear_svm": build_metric(results.svm[name].accuracy)}
    if name in results.zero_shot:
        metrics["zero_shot"] = build_metric(results.zero_shot[name])
    return metrics


def build_baselines(results: ProbeResults) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the metrics of the other features, and the difference of the pretrained ones to them.

    `difference` is that of the linear SVM, paired by test shape.
    """
    return {
        name: build_feature_metrics(results, name) | {"difference": build_metric(difference)}
        for name, difference in results.paired_differences.items()
    }
