"""Write the report.html of any pretraining run, and of any tested network."""

import json
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
from recon.checkpoints.run_config import read_config
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.reports.colors import uniform_color
from recon.reports.html_page import Section, get_run_name, write_run_page
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
from recon.utils.atomic_write import write_atomic
from recon.utils.printable import format_count
from recon.utils.progress import show_status
from recon.utils.results_file import RESULTS_FILE, build_results

MAX_SHAPES = 400
"""Maximum number of shapes that a report encodes, evenly spaced in the data set."""
NUM_SHOWN_CLOUDS, NUM_ATTENTION_CLOUDS = 6, 3
"""Number of example clouds, and of those with attention maps."""
ACCURACY_NOTE = "Accuracy in %. Brackets are 95 % bootstrap intervals over the test shapes."
GRAY = (150, 160, 175)
"""Color of clouds without colors."""


class NetworkInspection(NamedTuple):
    """Example clouds of a data set, with attention maps, t-SNE and nearest neighbors."""

    names: list[str]
    """Captions of `clouds`."""
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
    """Encode evenly spaced shapes of a data set; compute attention maps, t-SNE and neighbors."""
    count = min(max_shapes, len(dataset))
    candidates = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    rows, clouds = read_upright_clouds(data, dataset, candidates, num_points)
    labels = dataset.labels[rows] if len(dataset.labels) else np.full(len(rows), -1)
    names, features = [dataset.ids[row] for row in rows], compute_pooled_features(network, clouds)
    example_rows = pick_example_rows(labels, NUM_SHOWN_CLOUDS)
    class_names = [dataset.classes[label] if label >= 0 else "" for label in labels]
    titles = [
        f"{names[i]} ({class_names[i]})" if class_names[i] else names[i] for i in example_rows
    ]
    note = (
        f"Each row: a shape, then its nearest neighbors among {format_count(len(rows), 'shape')}, "
        "by cosine similarity of the features. Green: same class."
    )
    neighbors = (
        build_neighbor_section(features, example_rows, features, dataset, rows, note=note)
        if example_rows
        else None
    )
    examples = clouds[example_rows]
    return NetworkInspection(
        titles,
        examples,
        attention_maps(network, titles[:NUM_ATTENTION_CLOUDS], examples[:NUM_ATTENTION_CLOUDS]),
        tsne(features, labels, names, dataset.classes),
        neighbors,
    )


class PretrainingReport(Callback):
    """After pretraining, write report.html and report_data.npz into `folder`.

    The report shows training shapes. Other tasks are skipped, because their tests write a report.
    The network gets `num_points` points per shape; `started` is the start of the run in ISO format.
    """

    def __init__(self, folder: str | Path, *, num_points: int = 1024, started: str) -> None:
        self.folder, self.num_points = Path(folder), num_points
        self.started = datetime.fromisoformat(started)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Pretraining) or not isinstance(data, PointCloudDataModule):
            return
        with show_status("writing the report"):
            self._write_report(trainer, pl_module, data)

    def _write_report(
        self, trainer: Trainer, pl_module: Pretraining, data: PointCloudDataModule
    ) -> None:
        # A dry run trains on a few batches only, and its report shows no more shapes.
        num_trained = int(trainer.num_training_batches) * data.batch_size
        inspection = inspect_network(
            pl_module.model,
            data,
            data.dataset,
            self.num_points,
            max_shapes=min(MAX_SHAPES, num_trained),
        )
        names, clouds = inspection.names, inspection.clouds
        report_data = ReportData(
            get_curves(trainer),
            reconstruct_shapes(pl_module, names, clouds, [_color_gray(x) for x in clouds]),
            inspection.attention_maps,
            inspection.tsne,
        )
        write_report_data(self.folder, report_data)
        log_reconstructions(trainer, report_data.reconstructions)
        seconds = (datetime.now() - self.started).total_seconds()
        write_run_page(
            self.folder,
            f"Pretraining report: {get_run_name(self.folder)}",
            f"{describe_training(trainer, pl_module)} Wall time: {seconds:.0f} s.",
            [
                *build_introspection_sections(report_data, subject="Training shapes"),
                inspection.neighbor_section,
                *build_curve_sections(report_data),
            ],
        )
        print(f"{seconds:.0f} s; written to {self.folder}; see report.html", flush=True)


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
    """Write report.html and report_data.npz of a tested network; `rows` are its metrics."""
    confusion = (
        None if scores is None else ConfusionMatrix(scores.confusion_matrix.numpy(), classes)
    )
    report_data = ReportData(
        curves,
        (),
        inspection.attention_maps if inspection else (),
        inspection.tsne if inspection else None,
        confusion,
    )
    write_report_data(folder, report_data)
    per_class = (
        {}
        if scores is None
        else dict(zip(classes, scores.per_class_accuracy.tolist(), strict=True))
    )
    write_run_page(
        folder,
        title,
        lead,
        [
            build_bar_table("Metrics", ACCURACY_NOTE, rows) if rows else None,
            build_class_bars(per_class, "Accuracy") if per_class else None,
            *build_introspection_sections(report_data, subject="Test shapes"),
            inspection.neighbor_section if inspection else None,
            *build_curve_sections(report_data, predictor=predictor),
        ],
    )


def write_run_results(
    folder: Path, trainer: Trainer | None, *, checkpoint: str | None = None, **content: Any
) -> dict[str, Any]:
    """Write and return results.json of a run, whose config.yaml is in the same folder.

    `content` are arguments of `build_results`. The default of `checkpoint` is the one that the
    trainer has tested; None means the last weights.
    """
    config = read_config(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    if checkpoint is None and trainer is not None and trainer.ckpt_path is not None:
        path = Path(trainer.ckpt_path)
        inside = path.is_relative_to(folder)
        checkpoint = str(path.relative_to(folder) if inside else path)
    results = build_results(config, checkpoint=checkpoint, **content)
    write_atomic(folder / RESULTS_FILE, json.dumps(results, indent=1).encode())
    return results


def describe_training(trainer: Trainer, task: Pretraining) -> str:
    """Return a sentence with the student, the number of shapes and epochs, and the teachers."""
    data = getattr(trainer, "datamodule", None)
    count = ""
    if isinstance(data, PointCloudDataModule):
        count = f" on {format_count(len(data.dataset), 'shape')}"
    ensemble = getattr(task, "ensemble", None)
    signals = [f"{name} teacher" for name in ensemble.teachers] if ensemble else []
    signals += ["self-contrast"] if ensemble and ensemble.self_contrast else []
    supervision = f", with {' and '.join(signals)}" if signals else ", without teachers"
    caution = " Captions often contain the class name." if "text teacher" in signals else ""
    epochs = format_count(trainer.current_epoch, "epoch")
    return f"{type(task).__name__}, trained{count} for {epochs}{supervision}.{caution}"


def _color_gray(points: Float[Tensor, "n 3"]) -> Cloud:
    return Cloud(points.numpy(), colors=uniform_color(len(points), GRAY))
