"""Report pretraining on the bundled 3D models: linear probe, zero-shot accuracy, report.html."""

import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from sklearn.metrics import confusion_matrix
from torch import Tensor

from recon.callbacks.history import get_curves
from recon.data.datasets.furniture import Furniture
from recon.models.recon import PretrainingNetwork
from recon.reports.html_page import Section, get_run_name, write_run_page
from recon.reports.html_sections import build_curve_sections, build_introspection_sections
from recon.reports.introspection import (
    attention_maps,
    build_neighbor_section,
    pick_example_rows,
    reconstruct_shapes,
    tsne,
)
from recon.reports.probe_tables import (
    FEATURE_TITLES,
    PROTOCOL,
    build_baselines,
    build_feature_metrics,
    build_probe_section,
    print_probe_table,
)
from recon.reports.report_data import ConfusionMatrix, ReportData, write_report_data
from recon.reports.run_reports import (
    NUM_ATTENTION_CLOUDS,
    NUM_SHOWN_CLOUDS,
    describe_training,
    write_run_results,
)
from recon.reports.wandb_media import log_probe_accuracy, log_reconstructions
from recon.tasks.linear_probe import (
    CloudFeatures,
    ProbeResults,
    compare_features,
    encode_clouds,
    read_clouds,
    recalibrate_batch_norm,
)
from recon.tasks.pretrain import Pretraining
from recon.utils.progress import show_status


class FeatureEvaluation(NamedTuple):
    """Pretrained features of the bundled data set, and their accuracies on its test split."""

    train: Furniture
    test: Furniture
    test_clouds: Float[Tensor, "n p 3"]
    train_features: CloudFeatures
    test_features: CloudFeatures
    results: ProbeResults


class FurnitureReport(Callback):
    """After pretraining, evaluate the features on the bundled 3D models and write a report.

    Writes results.json, report.html and report_data.npz into `folder`. The untrained network is
    copied before the first step. `started` is the start of the run in ISO format.
    """

    def __init__(self, folder: str | Path, *, num_points: int = 1024, started: str) -> None:
        self.folder, self.num_points = Path(folder), num_points
        self.started = datetime.fromisoformat(started)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.untrained = deepcopy(_check_task(pl_module).model)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task, console = _check_task(pl_module), Console()
        with show_status("evaluating the features", console):
            evaluation = _evaluate_features(task, self.untrained, self.num_points)
        results, test = evaluation.results, evaluation.test
        with show_status("writing the report", console):
            report_data = _build_report_data(trainer, task, evaluation)
            write_report_data(self.folder, report_data)
            neighbors = _build_neighbor_section(evaluation)
            write_run_page(
                self.folder,
                f"Pretraining report: {get_run_name(self.folder)}",
                f"{describe_training(trainer, task)} Wall time: {self.seconds:.0f} s.",
                [
                    build_probe_section(results, test),
                    *build_introspection_sections(report_data, subject="Test shapes"),
                    neighbors,
                    *build_curve_sections(
                        report_data, predictor="the linear SVM on pretrained features"
                    ),
                ],
            )
        log_reconstructions(trainer, report_data.reconstructions)
        log_probe_accuracy(trainer, results, FEATURE_TITLES, test.labels, test.classes)
        seconds = self.seconds
        write_run_results(
            self.folder,
            None,
            checkpoint="checkpoints/last.ckpt",
            task="pretrain",
            split="test",
            protocol=PROTOCOL | {"test_shapes": len(test)},
            metrics=build_feature_metrics(results, "pretrained"),
            baselines=build_baselines(results),
            seconds=round(seconds, 1),
        )
        print_probe_table(console, results, num_classes=len(test.classes))
        _print_next_steps(console, self.folder, seconds)

    @property
    def seconds(self) -> float:
        """Wall time since the start of the run."""
        return (datetime.now() - self.started).total_seconds()


def _check_task(module: LightningModule) -> Pretraining:
    if not isinstance(module, Pretraining):
        raise TypeError(
            f"FurnitureReport needs a Pretraining task, got {type(module).__name__}: "
            "remove the callback"
        )
    return module


def _evaluate_features(
    task: Pretraining, untrained: PretrainingNetwork, num_points: int
) -> FeatureEvaluation:
    """Compare pretrained features with those of the untrained network, and a shape descriptor."""
    train, test = Furniture(["train"]), Furniture(["test"])
    train_clouds, test_clouds = read_clouds(train, num_points), read_clouds(test, num_points)
    networks = {
        "pretrained": task.model,
        "untrained": untrained.to(task.device),
        "calibrated": recalibrate_batch_norm(untrained, train_clouds),
    }
    features = {
        name: (encode_clouds(network, train_clouds), encode_clouds(network, test_clouds))
        for name, network in networks.items()
    }
    results = compare_features(
        features,
        (train_clouds, test_clouds),
        (train, test),
        _encode_class_names(task, train.classes),
    )
    return FeatureEvaluation(train, test, test_clouds, *features["pretrained"], results)


def _encode_class_names(task: Pretraining, classes: Sequence[str]) -> Float[Tensor, "c d"] | None:
    """Encode the class names by the task's text teacher; None without a text teacher."""
    teachers = getattr(getattr(task, "ensemble", None), "teachers", {})
    return teachers["text"]({"text": list(classes)}).cpu() if "text" in teachers else None


def _build_report_data(
    trainer: Trainer, task: Pretraining, evaluation: FeatureEvaluation
) -> ReportData:
    test, clouds = evaluation.test, evaluation.test_clouds
    rows = pick_example_rows(test.labels, NUM_SHOWN_CLOUDS)
    names = [f"{test.names[row]} ({test.classes[test.labels[row]]})" for row in rows]
    predicted = evaluation.results.svm["pretrained"].predicted
    return ReportData(
        get_curves(trainer),
        reconstruct_shapes(task, names, clouds[rows], [test.cloud(row) for row in rows]),
        attention_maps(
            task.model, names[:NUM_ATTENTION_CLOUDS], clouds[rows[:NUM_ATTENTION_CLOUDS]]
        ),
        tsne(evaluation.test_features.pooled, test.labels, test.names, test.classes),
        ConfusionMatrix(confusion_matrix(test.labels, predicted), test.classes),
    )


def _build_neighbor_section(evaluation: FeatureEvaluation) -> Section:
    return build_neighbor_section(
        evaluation.test_features.pooled,
        pick_example_rows(evaluation.test.labels, NUM_SHOWN_CLOUDS),
        evaluation.train_features.pooled,
        evaluation.test,
        gallery_dataset=evaluation.train,
        note=(
            "Each row: a test shape, then its nearest neighbors among the training shapes, by "
            "cosine similarity of the pretrained features. The network sees points only; the "
            "images are for display. Green: same class."
        ),
    )


def _print_next_steps(console: Console, folder: Path, seconds: float) -> None:
    """Print the path of the report, and commands to try."""
    activated = shutil.which("python") == sys.executable
    python = "python" if activated else _shorten_path(Path(sys.executable))
    train = f"{python} -m recon.train"
    folder = _shorten_path(folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    console.print(
        f"\n[bold]{seconds:.0f} s.[/bold] Report: {folder / 'report.html'}\nNext steps:\n"
        f"  {train} experiment=pretrain_furniture seed=1\n"
        f"  {train} experiment=pretrain_furniture student=generative\n"
        f"  {train} -m experiment=pretrain_furniture mask.ratio=0.3,0.6,0.8\n"
        f"  {python} -c \"import recon; print(recon.load('{checkpoint}'))\"",
        soft_wrap=True,
        highlight=False,
    )


def _shorten_path(path: Path) -> Path:
    """Return the path relative to the working directory if it is inside it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
