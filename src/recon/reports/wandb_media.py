"""Log point clouds, confusion matrices and accuracy tables to Weights & Biases."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger

from recon.reports.colors import RECONSTRUCTED_COLOR, VISIBLE_COLOR, uniform_color
from recon.reports.report_data import ReconstructedShape
from recon.tasks.linear_probe import ProbeResults


def iter_wandb_runs(trainer: Trainer) -> Iterator[Any]:
    """Yield the W&B runs that a trainer logs to."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            yield logger.experiment


def log_reconstructions(trainer: Trainer, shapes: Sequence[ReconstructedShape]) -> None:
    """Log each shape as three clouds: original, visible patches and reconstruction."""
    import wandb

    for run in iter_wandb_runs(trainer):
        for number, shape in enumerate(shapes):
            visible = np.concatenate(
                [shape.visible, uniform_color(len(shape.visible), VISIBLE_COLOR)], 1
            )
            reconstructed = np.concatenate(
                [shape.reconstructed, uniform_color(len(shape.reconstructed), RECONSTRUCTED_COLOR)],
                1,
            )
            clouds = {
                "truth": np.concatenate([shape.points, shape.colors], 1),
                "seen": visible,
                "rebuilt": np.concatenate([visible, reconstructed]),
            }
            run.log({f"rebuilt/{number}/{k}": wandb.Object3D(v) for k, v in clouds.items()})


def log_probe_accuracy(
    trainer: Trainer,
    results: ProbeResults,
    titles: Mapping[str, str],
    truth: Int[np.ndarray, " n"],
    classes: Sequence[str],
) -> None:
    """Log the linear SVM accuracies and the confusion matrix of the pretrained features."""
    import wandb

    rows = [[titles[name], *row.accuracy, row.hyperparameters] for name, row in results.svm.items()]
    for run in iter_wandb_runs(trainer):
        columns = ["features", "linear SVM", "low", "high", "hyperparameters"]
        run.log({"accuracy": wandb.Table(columns, rows)})
        log_confusion(run, truth, results.svm["pretrained"].predicted, classes)


def log_confusion(
    run: Any,
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    classes: Sequence[str],
) -> None:
    """Log a confusion matrix as a W&B chart, and a table of per-class accuracies."""
    import wandb

    names = [*classes]
    matrix = wandb.plot.confusion_matrix(
        y_true=truth.tolist(), preds=predicted.tolist(), class_names=names
    )
    rows = [
        [name, int((truth == number).sum()), float((predicted[truth == number] == number).mean())]
        for number, name in enumerate(names)
        if (truth == number).any()
    ]
    table = wandb.Table(["class", "shapes", "accuracy"], rows)
    run.log({"confusion": matrix, "classes": table})
