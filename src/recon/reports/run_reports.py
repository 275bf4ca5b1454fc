"""Pages about any data: what a network makes of shapes, how it learned, how it was tested."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from recon.callbacks.history import Curves, get_curves
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.reports.colors import uniform_color
from recon.reports.html_page import Section, write_page
from recon.reports.html_sections import (
    Bar,
    build_bar_table,
    build_class_bars,
    build_curve_sections,
    build_introspection_sections,
)
from recon.reports.introspection import (
    attention_maps,
    build_neighbor_section,
    compute_pooled_features,
    pick_example_rows,
    read_upright_clouds,
    reconstruct_shapes,
    tsne,
)
from recon.reports.report_data import (
    AttentionMap,
    ConfusionMatrix,
    ReportData,
    TSNEEmbedding,
    write_report_data,
)
from recon.reports.wandb_media import log_reconstructions
from recon.tasks.metrics import ClassificationScores
from recon.tasks.pretrain import Pretraining

MAX_SHAPES = 400
"""Shapes that are looked at, evenly spaced among all."""
NUM_SHOWN_CLOUDS, NUM_ATTENTION_CLOUDS = 6, 3
ACCURACY_NOTE = "Accuracies in %, in brackets 95 % bootstrap intervals over the tested shapes."
GREY = (150, 160, 175)


class NetworkInspection(NamedTuple):
    """What a network makes of some shapes of a data set."""

    names: list[str]
    """Of the few that are shown as clouds."""
    clouds: Float[Tensor, "n p 3"]
    attention_maps: list[AttentionMap]
    tsne: TSNEEmbedding | None
    neighbor_section: Section | None


def inspect_network(
    network: Any,
    data: PointCloudDataModule,
    dataset: PointCloudDataset,
    num_points: int,
    *,
    max_shapes: int = MAX_SHAPES,
) -> NetworkInspection:
    """Encode some shapes of a data set; show a few, and how all of them lie."""
    count = min(max_shapes, len(dataset))
    asked = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    rows, clouds = read_upright_clouds(data, dataset, asked, num_points)
    labels = dataset.labels[rows] if len(dataset.labels) else np.full(len(rows), -1)
    names, features = [dataset.ids[row] for row in rows], compute_pooled_features(network, clouds)
    shown = pick_example_rows(labels, NUM_SHOWN_CLOUDS)
    known = [dataset.classes[label] if label >= 0 else "" for label in labels]
    titles = [f"{names[i]} ({known[i]})" if known[i] else names[i] for i in shown]
    note = (
        f"A shape, then those most like it to the network, among {len(rows)} of these. "
        "Green: of the same class."
    )
    places = [rows[i] for i in shown]
    near = (
        build_neighbor_section(features, shown, features, dataset, rows, note=note)
        if places
        else None
    )
    few = clouds[shown]
    return NetworkInspection(
        titles,
        few,
        attention_maps(network, titles[:NUM_ATTENTION_CLOUDS], few[:NUM_ATTENTION_CLOUDS]),
        tsne(features, labels, names, dataset.classes),
        near,
    )


class PretrainingReport(Callback):
    """After a pretraining, write report.html and the pictures it shows into `folder`.

    It shows shapes that were trained on, and does nothing after other trainings: their tests leave
    such a page. `points` are what the network sees of a shape; `started` is when the run began.
    """

    def __init__(self, folder: str | Path, *, num_points: int = 1024, started: str) -> None:
        self.folder, self.num_points = Path(folder), num_points
        self.started = datetime.fromisoformat(started)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Pretraining) or not isinstance(data, PointCloudDataModule):
            return
        met = int(trainer.num_training_batches) * data.batch_size  # not all of a dry run
        most = min(MAX_SHAPES, met)
        seen = inspect_network(
            pl_module.model, data, data.dataset, self.num_points, max_shapes=most
        )
        shown = ReportData(
            get_curves(trainer),
            reconstruct_shapes(pl_module, seen.names, seen.clouds, [_grey(x) for x in seen.clouds]),
            seen.attention_maps,
            seen.tsne,
        )
        write_report_data(self.folder, shown)
        log_reconstructions(trainer, shown.reconstructions)
        seconds = (datetime.now() - self.started).total_seconds()
        config = self.folder / "config.yaml"
        write_page(
            self.folder / "report.html",
            "What this run learned",
            f"{describe_training(trainer, pl_module)} This run took {seconds:.0f} s.",
            [
                *build_introspection_sections(shown, subject="Shapes it was trained on"),
                seen.neighbor_section,
                *build_curve_sections(shown),
            ],
            config.read_text() if config.is_file() else "",
        )
        print(f"{seconds:.0f} s; written to {self.folder}, pictures in report.html", flush=True)


def write_test_report(
    folder: Path,
    title: str,
    lead: str,
    rows: Sequence[Bar],
    *,
    scores: ClassificationScores | None,
    classes: Sequence[str],
    inspection: NetworkInspection | None,
    curves: Curves,
    predictor: str,
) -> None:
    """Write the page of a tested network, and the pictures it shows, into a folder."""
    confusion = (
        None if scores is None else ConfusionMatrix(scores.confusion_matrix.numpy(), classes)
    )
    shown = ReportData(
        curves,
        (),
        inspection.attention_maps if inspection else (),
        inspection.tsne if inspection else None,
        confusion,
    )
    write_report_data(folder, shown)
    shares = (
        {}
        if scores is None
        else dict(zip(classes, scores.per_class_accuracy.tolist(), strict=True))
    )
    config = folder / "config.yaml"
    write_page(
        folder / "report.html",
        title,
        lead,
        [
            build_bar_table("Figures", ACCURACY_NOTE, rows) if rows else None,
            build_class_bars(shares, "Accuracy") if shares else None,
            *build_introspection_sections(shown, subject="Tested shapes"),
            inspection.neighbor_section if inspection else None,
            *build_curve_sections(shown, predictor=predictor),
        ],
        config.read_text() if config.is_file() else "",
    )


def describe_training(trainer: Trainer, task: Pretraining) -> str:
    """Say in a sentence what was trained, on what, and by whom."""
    data = getattr(trainer, "datamodule", None)
    count = f" on {len(data.dataset)} shapes" if isinstance(data, PointCloudDataModule) else ""
    ensemble = getattr(task, "ensemble", None)
    by = [f"{name} teacher" for name in ensemble.teachers] if ensemble else []
    by += ["contrast among clouds"] if ensemble and ensemble.self_contrast else []
    taught = f", with {' and '.join(by)}" if by else ", without teachers"
    caution = " Captions often hold the class word." if "text teacher" in by else ""
    what, epochs = type(task).__name__, trainer.current_epoch
    return f"{what}, trained{count} for {epochs} epochs{taught}.{caution}"


def _grey(points: Float[Tensor, "n 3"]) -> Cloud:
    return Cloud(points.numpy(), colors=uniform_color(len(points), GREY))
