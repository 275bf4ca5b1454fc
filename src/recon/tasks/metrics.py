"""Score a classification: overall, mean class and top-k accuracy, and the confusion matrix."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)

from recon.tasks.linear_probe import ConfidenceInterval, bootstrap_interval


class ClassificationScores(NamedTuple):
    """Accuracies of labeled shapes, as fractions."""

    overall_accuracy: ConfidenceInterval
    """Share of correct shapes, with a 95 % bootstrap interval over the shapes."""
    mean_class_accuracy: float
    """Mean accuracy over classes that have shapes."""
    top_k_accuracy: dict[int, float]
    """Share of shapes whose class is among the k most likely classes, by k."""
    per_class_accuracy: Float[Tensor, " c"]
    """Accuracy of each class, NaN for a class without a shape."""
    confusion_matrix: Int[Tensor, "c c"]
    """Number of shapes by class (rows) and predicted class (columns)."""


def classification_scores(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]
) -> ClassificationScores:
    """Compare logits with labels; raise ValueError for a label of no class."""
    classes = logits.shape[1]
    if int(labels.max()) >= classes:
        raise ValueError(f"label {int(labels.max())} is none of the {classes} classes of the model")
    correct = logits.argmax(1) == labels
    per_class = multiclass_accuracy(logits, labels, classes, average="none")
    present = torch.bincount(labels, minlength=classes) > 0
    per_class = per_class.where(present, torch.nan)
    ks = [k for k in (1, 3, 5) if k <= classes]
    return ClassificationScores(
        overall_accuracy=bootstrap_interval(correct.numpy()),
        mean_class_accuracy=float(per_class.nanmean()),
        top_k_accuracy={
            k: float(multiclass_accuracy(logits, labels, classes, average="micro", top_k=k))
            for k in ks
        },
        per_class_accuracy=per_class,
        confusion_matrix=multiclass_confusion_matrix(logits, labels, classes),
    )
