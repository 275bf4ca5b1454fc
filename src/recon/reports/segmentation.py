"""Report a segmenter's test: IoU tables, results.json, images of the best and worst cloud."""

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
from recon.reports.html_page import (
    GalleryItem,
    build_gallery,
    encode_cloud,
    get_run_name,
    write_run_page,
)
from recon.reports.html_sections import (
    build_bar,
    build_bar_table,
    build_class_bars,
    build_curve_sections,
)
from recon.reports.report_data import ReportData, write_report_data
from recon.reports.run_reports import write_run_results
from recon.reports.wandb_media import iter_wandb_runs
from recon.tasks.iou import IGNORE_INDEX
from recon.tasks.segment import Segmentation, SegmentedCloud
from recon.utils.printable import format_count
from recon.utils.results_file import (
    METRIC_NAMES,
    ProtocolResults,
    build_metric,
    combine_protocols,
)

ColoredViews = list[tuple[str, UInt8[np.ndarray, "n 3"]]]
"""Title and point colors of each view of a cloud."""


class SegmentationReport(Callback):
    """After a test, print IoUs with their protocol; write them and images into `folder`.

    Writes results.json, segments.png and report.html, and logs rotatable clouds to W&B if it is
    the logger. `published` are metrics in %, by name.
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
        data = getattr(trainer, "datamodule", None)
        num_trained = count_trained_samples(data, [cloud.name for cloud in pl_module.test_clouds])
        self._write_results(trainer, results, num_trained)
        up = "y"
        if isinstance(data, PointCloudDataModule):
            up = data.target_up or data.test_dataset.up
        selected = pick_best_median_worst(pl_module.test_clouds)
        plot_segmentations(selected, self.folder / "segments.png", up=up)
        protocol, per_class = _get_class_ious(results)
        self._write_page(results, selected, per_class, up, get_curves(trainer))
        for run in iter_wandb_runs(trainer):
            _log_to_wandb(run, selected, per_class)
        self._print_tables(results, protocol, per_class, num_trained)

    def _write_results(self, trainer: Trainer, results: dict[str, Any], num_trained: int) -> None:
        unit = "shapes" if "shapes" in results else "rooms"
        metrics, protocols = combine_protocols(separate_protocols(results))
        write_run_results(
            self.folder,
            trainer,
            task="part_segment" if unit == "shapes" else "scene_segment",
            metrics=metrics,
            protocol={
                "selection": self.selection,
                f"test_{unit}": results[unit],
                "tested_on_training_shapes": num_trained,
                "eval_points": results["eval_points"],
            },
            votes=results.get("votes", 1),
            published=dict(self.published),
            protocols=protocols,
            **{name: results[name] for name in ("points", "ids") if name in results},
        )

    def _print_tables(
        self,
        results: dict[str, Any],
        protocol: str,
        per_class: dict[str, float],
        num_trained: int,
    ) -> None:
        console = Console()
        table = Table("class", "IoU", title=f"IoU in % by class, {protocol}", box=SIMPLE)
        for name, value in per_class.items():
            table.add_row(escape(name), f"{100 * value:.1f}")
        console.print(table)
        title = f"{_title_metrics(results)}, eval.selection={self.selection}"
        title += f", {num_trained} TRAINED ON" if num_trained else ""
        published_heading = ["published, paper's protocol"] if self.published else []
        table = Table("metric", "value", *published_heading, title=title, box=SIMPLE)
        for name, value in summarize_results(results).items():
            key = name.split(",")[0].replace(" ", "_").lower()
            published = [str(self.published.get(key, "-"))] if self.published else []
            table.add_row(escape(name), f"{100 * value:.1f}", *published)
        console.print(table)
        console.print(f"written to {self.folder}", soft_wrap=True, highlight=False)

    def _write_page(
        self,
        results: dict[str, Any],
        selected: Sequence[tuple[str, SegmentedCloud]],
        per_class: dict[str, float],
        up: str,
        curves: Curves,
    ) -> None:
        unit = "shapes" if "shapes" in results else "rooms"
        note = (
            "The test clouds with the highest, median and lowest mIoU. Errors are red; unlabeled "
            "points are gray and not scored. Drag to rotate; the three views of a cloud rotate "
            "together."
        )
        groups = [_build_gallery_group(title, cloud, up) for title, cloud in selected]
        metrics = [build_bar(n, v, best=True) for n, v in summarize_results(results).items()]
        report_data = ReportData(curves)
        write_report_data(self.folder, report_data)
        write_run_page(
            self.folder,
            f"Segmentation report: {get_run_name(self.folder)}",
            f"{format_count(results[unit], f'test {unit[:-1]}')}, eval.selection={self.selection}.",
            [
                build_bar_table(_title_metrics(results), "", metrics),
                build_gallery("Ground truth, prediction, error", note, groups),
                build_class_bars(per_class, "IoU"),
                *build_curve_sections(report_data),
            ],
        )


def separate_protocols(results: dict[str, Any]) -> list[ProtocolResults]:
    """Return the metrics and details of each protocol of a task's results."""
    by_protocol = results.get("results") or {_get_class_ious(results)[0]: results}
    rows = []
    for protocol, values in by_protocol.items():
        numbers = {name: values[name] for name in METRIC_NAMES if name in values}
        metrics = {
            name: build_metric(value["mean"] if isinstance(value, Mapping) else value)
            for name, value in numbers.items()
        }
        details = {name: values[name] for name in ("per_class", "confusion") if name in values}
        variant = protocol.partition(",")[0].replace(" ", "_")
        rows.append(ProtocolResults(protocol, variant, metrics, details))
    return rows


def summarize_results(results: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a part or scene segmentation test by their printed names."""
    if "instance_miou" in results:
        return {f"{kind} mIoU": results[f"{kind}_miou"] for kind in ("instance", "class")}
    metrics: dict[str, float] = {}
    for name, row in results["results"].items():
        metrics |= {f"mIoU, {name}": row["miou"], f"mAcc, {name}": row["macc"]}
        metrics[f"overall accuracy, {name}"] = row["overall_accuracy"]["mean"]
    return metrics


def _title_metrics(results: dict[str, Any]) -> str:
    """Return the heading of `summarize_results`: part segmentation has no accuracies."""
    if "instance_miou" in results:
        return f"mIoU (%), {describe_points(results)}"
    return "mIoU and accuracy (%)"


def describe_points(results: dict[str, Any]) -> str:
    """Return which points of the shapes are scored, and the number of several votes."""
    points = {"file": "every point of each file", "drawn": "drawn points of each shape"}
    votes = f", {results['votes']} votes" if results["votes"] > 1 else ""
    return points[results["eval_points"]] + votes


def _get_class_ious(results: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the protocol and the IoU of each class."""
    if "per_class" in results:
        return f"mean over shapes, {describe_points(results)}", results["per_class"]
    name, row = next(iter(results["results"].items()))
    return name, row["per_class"]


def pick_best_median_worst(tested: Sequence[SegmentedCloud]) -> list[tuple[str, SegmentedCloud]]:
    """Return the clouds with the highest, median and lowest mIoU, each after its title."""
    ranked = sorted(tested, key=lambda cloud: -cloud.iou)
    last = len(ranked) - 1
    rows = {last // 2: "median", last: "worst", 0: "best"}  # one or two clouds have no median
    return [
        (f"{name}, {ranked[row].name}, mIoU {100 * ranked[row].iou:.1f}", ranked[row])
        for row, name in sorted(rows.items())
    ]


def color_views(cloud: SegmentedCloud) -> ColoredViews:
    """Return point colors of the ground truth, the prediction and the errors."""
    labels, predicted = cloud.labels.numpy(), cloud.predicted.numpy()
    error = np.where((labels == predicted)[:, None], CORRECT_COLOR, WRONG_COLOR).astype(np.uint8)
    error[labels == IGNORE_INDEX] = UNLABELED_COLOR
    return [
        ("truth", color_by_class(labels)),
        ("prediction", color_by_class(predicted)),
        ("error", error),
    ]


def plot_segmentations(
    selected: Sequence[tuple[str, SegmentedCloud]], path: Path, *, up: str
) -> None:
    """Draw ground truth, prediction and errors of each cloud side by side."""
    figure = Figure(figsize=(7.5, 2.7 * len(selected)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(selected), 3, squeeze=False))
    for row, (title, cloud) in zip(grid, selected, strict=True):
        for axes, (name, colors) in zip(row, color_views(cloud), strict=True):
            axes.imshow(render_cloud(Cloud(cloud.points.numpy(), colors=colors), up=up, size=320))
            axes.set_title(name, fontsize=8)
            axes.axis("off")
        row[1].set_title(f"{title}\nprediction", fontsize=8)
    figure.savefig(path, dpi=130)


def _build_gallery_group(title: str, cloud: SegmentedCloud, up: str) -> list[GalleryItem]:
    order = [(("xyz".index(up)) + shift) % 3 for shift in (2, 0, 1)]
    points = _scale_to_unit_sphere(cloud.points.numpy()[:, order])
    return [
        GalleryItem(f"{title}: {name}", encode_cloud(points, colors))
        for name, colors in color_views(cloud)
    ]


def _scale_to_unit_sphere(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    centered = points - (points.min(0) + points.max(0)) / 2
    return centered / max(float(np.linalg.norm(centered, axis=1).max()), 1e-9)


def _log_to_wandb(
    run: Any, selected: Sequence[tuple[str, SegmentedCloud]], per_class: Mapping[str, float]
) -> None:
    import wandb

    rows = [[name, value] for name, value in per_class.items()]
    run.log({"classes": wandb.Table(["class", "IoU"], rows)})

    for title, cloud in selected:
        for name, colors in color_views(cloud):
            colored_points = np.concatenate([cloud.points.numpy(), colors], 1)
            key = f"segments/{title.split(',')[0]}/{name}"
            run.log({key: wandb.Object3D(colored_points)})
