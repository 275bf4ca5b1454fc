"""What a test of a segmenter found: tables, results.json, pictures of the best and the worst."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon.callbacks.history import Curves, get_curves
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud
from recon.data.render import render_cloud
from recon.reports.colors import CORRECT_COLOR, UNLABELED_COLOR, WRONG_COLOR, color_by_class
from recon.reports.confusion import count_trained_samples
from recon.reports.html_page import GalleryItem, build_gallery, encode_cloud, write_page
from recon.reports.html_sections import (
    build_bar,
    build_bar_table,
    build_class_bars,
    build_curve_sections,
)
from recon.reports.report_data import ReportData, write_report_data
from recon.reports.wandb_media import iter_wandb_runs
from recon.tasks.iou import IGNORE_INDEX
from recon.tasks.segment import Segmentation, SegmentedCloud
from recon.utils.atomic_write import write_atomic

ColoredViews = list[tuple[str, UInt8[np.ndarray, "n 3"]]]


class SegmentationReport(Callback):
    """After a test, print IoUs with their protocol and write them and pictures into `folder`.

    results.json, segments.png and report.html; with W&B as logger, clouds that can be turned.
    `published` are figures in %, by the name of what they measure.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        selection: str,
        published: Mapping[str, float] | None = None,
    ) -> None:
        self.folder, self.selection = Path(folder), selection
        self.published = published or {}

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Segmentation)
        results = pl_module.compute_results()
        told: dict[str, Any] = {"selection": self.selection, "published": dict(self.published)}
        data = getattr(trainer, "datamodule", None)
        seen = count_trained_samples(data, [shape.name for shape in pl_module.test_clouds])
        told["tested_on_training_shapes"] = seen
        text = json.dumps(told | results, indent=1)
        write_atomic(self.folder / "results.json", text.encode())
        up = data.test_dataset.up if isinstance(data, PointCloudDataModule) else "y"
        shown = pick_best_median_worst(pl_module.test_clouds)
        plot_segmentations(shown, self.folder / "segments.png", up=up)
        kind, per_class = _by_class(results)
        self._page(results, shown, per_class, up, get_curves(trainer))
        for run in iter_wandb_runs(trainer):
            _to_wandb(run, shown, per_class)
        console = Console()
        table = Table("class", "IoU", title=f"IoU in %, {kind}", box=SIMPLE)
        for name, value in per_class.items():
            table.add_row(escape(name), f"{100 * value:.1f}")
        console.print(table)
        title = f"In %, eval.selection={self.selection}" + (f", {seen} TRAINED ON" if seen else "")
        heads = ["measure", "here", *(["published, paper's protocol"] if self.published else [])]
        table = Table(*heads, title=title, box=SIMPLE)
        for name, value in summarize_results(results).items():
            known = self.published.get(name.split(",")[0].replace(" ", "_").lower(), "-")
            table.add_row(
                escape(name), f"{100 * value:.1f}", *([str(known)] if self.published else [])
            )
        console.print(table)
        console.print(f"written to {self.folder}", soft_wrap=True, highlight=False)

    def _page(
        self,
        results: dict[str, Any],
        shown: Sequence[tuple[str, SegmentedCloud]],
        per_class: dict[str, float],
        up: str,
        curves: Curves,
    ) -> None:
        config = self.folder / "config.yaml"
        count = results.get("shapes") or results.get("rooms")
        note = (
            "The best, the median and the worst of the test split. Errors in red; points without a "
            "label are left out. Drag to turn; the three turn together."
        )
        groups = [_clouds(title, shape, up) for title, shape in shown]
        kept = ReportData(curves)
        write_report_data(self.folder, kept)
        write_page(
            self.folder / "report.html",
            "Segmented points",
            f"{count} of the test split, eval.selection={self.selection}.",
            [
                build_bar_table(
                    "In %",
                    "",
                    [build_bar(n, v, best=True) for n, v in summarize_results(results).items()],
                ),
                build_gallery("Truth, prediction, error", note, groups),
                build_class_bars(per_class, "IoU"),
                *build_curve_sections(kept),
            ],
            config.read_text() if config.is_file() else "",
        )


def summarize_results(results: dict[str, Any]) -> dict[str, float]:
    """Name the figures of a test, of parts or of scenes."""
    if "instance_miou" in results:
        return {n.replace("_", " "): results[n] for n in ("instance_miou", "class_miou")}
    found: dict[str, float] = {}
    for name, row in results["results"].items():
        found |= {f"mIoU, {name}": row["miou"], f"mAcc, {name}": row["macc"]}
        found[f"overall accuracy, {name}"] = row["overall_accuracy"]["mean"]
    return found


def _by_class(results: dict[str, Any]) -> tuple[str, dict[str, float]]:
    if "per_class" in results:
        return "mean over shapes", results["per_class"]
    name, row = next(iter(results["results"].items()))
    return name, row["per_class"]


def pick_best_median_worst(tested: Sequence[SegmentedCloud]) -> list[tuple[str, SegmentedCloud]]:
    """Pick the best, the median and the worst, with their IoUs in their titles."""
    ranked = sorted(tested, key=lambda shape: -shape.iou)
    last = len(ranked) - 1
    rows = {last // 2: "median", last: "worst", 0: "best"}  # of one or two, there is no median
    return [
        (f"{name}, {ranked[row].name}, mIoU {100 * ranked[row].iou:.1f}", ranked[row])
        for row, name in sorted(rows.items())
    ]


def color_views(shape: SegmentedCloud) -> ColoredViews:
    """Return the colours of truth, prediction and error for each point."""
    labels, predicted = shape.labels.numpy(), shape.predicted.numpy()
    error = np.where((labels == predicted)[:, None], CORRECT_COLOR, WRONG_COLOR).astype(np.uint8)
    error[labels == IGNORE_INDEX] = UNLABELED_COLOR
    return [
        ("truth", color_by_class(labels)),
        ("prediction", color_by_class(predicted)),
        ("error", error),
    ]


def plot_segmentations(shown: Sequence[tuple[str, SegmentedCloud]], path: Path, *, up: str) -> None:
    """Draw truth, prediction and error of each shape, side by side."""
    figure = Figure(figsize=(7.5, 2.7 * len(shown)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(shown), 3, squeeze=False))
    for row, (title, shape) in zip(grid, shown, strict=True):
        for axes, (name, colors) in zip(row, color_views(shape), strict=True):
            axes.imshow(render_cloud(Cloud(shape.points.numpy(), colors=colors), up=up, size=320))
            axes.set_title(name, fontsize=8)
            axes.axis("off")
        row[1].set_title(f"{title}\nprediction", fontsize=8)
    figure.savefig(path, dpi=130)


def _clouds(title: str, shape: SegmentedCloud, up: str) -> list[GalleryItem]:
    order = [(("xyz".index(up)) + shift) % 3 for shift in (2, 0, 1)]
    points = _unit(shape.points.numpy()[:, order])
    return [
        GalleryItem(f"{title}: {n}", encode_cloud(points, colors))
        for n, colors in color_views(shape)
    ]


def _unit(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    centered = points - (points.min(0) + points.max(0)) / 2
    return centered / max(float(np.linalg.norm(centered, axis=1).max()), 1e-9)


def _to_wandb(
    run: Any, shown: Sequence[tuple[str, SegmentedCloud]], per_class: Mapping[str, float]
) -> None:
    import wandb

    rows = [[name, value] for name, value in per_class.items()]
    run.log({"classes": wandb.Table(["class", "IoU"], rows)})

    for title, shape in shown:
        for name, colors in color_views(shape):
            cloud = np.concatenate([shape.points.numpy(), colors], 1)
            key = f"segments/{title.split(',')[0]}/{name}"
            run.log({key: wandb.Object3D(cloud)})
