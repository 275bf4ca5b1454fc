"""What W&B shows beside curves: clouds to turn, confusion matrices, tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger

from recon.callbacks.page import REBUILT_COLOR, VISIBLE_COLOR, Page


def dashboards(trainer: Trainer) -> Iterator[Any]:
    """Yield the W&B runs that a trainer logs to."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            yield logger.experiment


def painted(points: Float[np.ndarray, "n 3"], color: Sequence[int]) -> Float[np.ndarray, "n 6"]:
    """Return points in one colour, (N, 6): x, y, z, r, g, b."""
    return np.concatenate([points, np.tile(np.asarray(color, np.float32), (len(points), 1))], 1)


def show_pretraining(trainer: Trainer, page: Page) -> None:
    """Log what a report shows: rebuilt clouds, confusion, accuracies."""
    import wandb

    rows = [
        [page.titles[name], *row.accuracy, row.chosen] for name, row in page.results.rows.items()
    ]
    predicted = page.results.rows["pretrained"].predicted
    for run in dashboards(trainer):
        for number, shape in enumerate(page.rebuilt):
            seen, made = (
                painted(shape.visible, VISIBLE_COLOR),
                painted(shape.rebuilt, REBUILT_COLOR),
            )
            clouds = {
                "truth": np.concatenate([shape.points, shape.colors], 1),
                "seen": seen,
                "rebuilt": np.concatenate([seen, made]),
            }
            run.log({f"rebuilt/{number}/{k}": wandb.Object3D(v) for k, v in clouds.items()})
        columns = ["features", "linear SVM", "low", "high", "chosen"]
        run.log({"accuracy": wandb.Table(columns, rows)})
        log_confusion(run, page.truth, predicted, page.classes)


def log_confusion(
    run: Any,
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    classes: Sequence[str],
) -> None:
    """Log a confusion matrix, as W&B draws it, and a table of the classes."""
    import wandb

    told = [*classes]
    matrix = wandb.plot.confusion_matrix(
        y_true=truth.tolist(), preds=predicted.tolist(), class_names=told
    )
    rows = [
        [name, int((truth == number).sum()), float((predicted[truth == number] == number).mean())]
        for number, name in enumerate(told)
        if (truth == number).any()
    ]
    table = wandb.Table(["class", "shapes", "accuracy"], rows)
    run.log({"confusion": matrix, "classes": table})
