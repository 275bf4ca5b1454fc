"""Compute intersection over union (IoU) of object parts and of scene classes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

IGNORE_INDEX = -1
"""Label of points that losses and scores ignore."""


def confusion(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int
) -> Int[Tensor, "c c"]:
    """Count points by class (rows) and predicted class (columns), without unlabeled points."""
    if not (labels != IGNORE_INDEX).any():  # torchmetrics fails on an empty input
        return torch.zeros(classes, classes, dtype=torch.long, device=labels.device)
    return multiclass_confusion_matrix(predicted, labels, classes, ignore_index=IGNORE_INDEX)


def predict_parts(log_probs: Float[Tensor, "n c"], parts: Sequence[int]) -> Int[Tensor, " n"]:
    """Predict the most likely class of each point among the parts of its object."""
    classes = torch.as_tensor(parts, device=log_probs.device)
    return classes[log_probs[:, classes].argmax(1)]


def part_iou(counts: Int[Tensor, "c c"], parts: Sequence[int]) -> float:
    """Return the mean IoU over an object's parts [1].

    `counts` is the confusion matrix of the object over all point classes. A part that is neither
    labeled nor predicted has IoU 1.

    [1] Qi et al., PointNet, arXiv:1612.00593, section 5.1.
    """
    classes = torch.as_tensor(parts, device=counts.device)
    hits = counts.diagonal()[classes].double()
    union = (counts.sum(0) + counts.sum(1))[classes].double() - hits
    return float(torch.where(union > 0, hits / union.clamp(min=1), torch.ones_like(hits)).mean())


class PartScores(NamedTuple):
    """IoU of shapes, as fractions."""

    instance_miou: float
    """Mean over shapes."""
    class_miou: float
    """Mean over object classes of the mean over their shapes, without empty classes."""
    per_class: Float[Tensor, " o"]
    """Mean over the shapes of each object class, NaN for a class without shapes."""


def part_scores(
    ious: Float[Tensor, " n"], labels: Int[Tensor, " n"], num_object_classes: int
) -> PartScores:
    """Average the IoU of shapes over all shapes and over object classes."""
    means = [ious[labels == number].mean() for number in range(num_object_classes)]
    per_class = torch.stack(means).double()
    return PartScores(float(ious.mean()), float(per_class.nanmean()), per_class)


class SceneScores(NamedTuple):
    """Scores of point classification in scenes, as fractions, without absent classes."""

    miou: float
    """Mean IoU over the classes that are labeled or predicted somewhere."""
    macc: float
    """Mean class accuracy: the share of correct points, averaged over the labeled classes."""
    overall_accuracy: float
    """Share of correct points."""
    iou: Float[Tensor, " c"]
    """IoU of each class, NaN for a class that is neither labeled nor predicted."""


def scene_scores(counts: Int[Tensor, "c c"]) -> SceneScores:
    """Score a confusion matrix of points, classes (rows) by predicted classes (columns)."""
    hits, labeled = counts.diagonal().double(), counts.sum(1).double()
    iou = hits / (labeled + counts.sum(0).double() - hits)
    accuracy = hits / labeled
    return SceneScores(
        float(iou.nanmean()), float(accuracy.nanmean()), float(hits.sum() / labeled.sum()), iou
    )
