"""Intersections over unions, of an object's own parts and of the classes of scenes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

IGNORE_INDEX = -1
"""Label of points that count neither for nor against."""


def confusion(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int
) -> Int[Tensor, "c c"]:
    """Count points by class (rows) and predicted class (columns); those without label are out."""
    if not (labels != IGNORE_INDEX).any():  # torchmetrics cannot count nothing
        return torch.zeros(classes, classes, dtype=torch.long, device=labels.device)
    return multiclass_confusion_matrix(predicted, labels, classes, ignore_index=IGNORE_INDEX)


def predict_parts(log_probs: Float[Tensor, "n c"], parts: Sequence[int]) -> Int[Tensor, " n"]:
    """Predict each point's class among those that its object may have."""
    own = torch.as_tensor(parts, device=log_probs.device)
    return own[log_probs[:, own].argmax(1)]


def part_iou(counts: Int[Tensor, "c c"], parts: Sequence[int]) -> float:
    """Return the mean IoU over an object's own parts; one that is absent and unpredicted has 1 [1].

    `counts` is the object's confusion matrix over all classes of points.

    [1] Qi et al., PointNet, arXiv:1612.00593, section 5.1.
    """
    own = torch.as_tensor(parts, device=counts.device)
    hits = counts.diagonal()[own].double()
    union = (counts.sum(0) + counts.sum(1))[own].double() - hits
    return float(torch.where(union > 0, hits / union.clamp(min=1), torch.ones_like(hits)).mean())


class PartScores(NamedTuple):
    """IoUs of shapes, as fractions."""

    instance_miou: float
    """Mean over shapes."""
    class_miou: float
    """Mean over the classes of objects that have shapes, of their shapes' mean."""
    per_class: Float[Tensor, " o"]
    """Mean over each class's shapes, NaN where it has none."""


def part_scores(
    ious: Float[Tensor, " n"], labels: Int[Tensor, " n"], num_object_classes: int
) -> PartScores:
    """Average the IoUs of shapes, over all of them and by class of object."""
    means = [ious[labels == number].mean() for number in range(num_object_classes)]
    per_class = torch.stack(means).double()
    return PartScores(float(ious.mean()), float(per_class.nanmean()), per_class)


class SceneScores(NamedTuple):
    """How well points of scenes are classified, as fractions; classes in no scene are left out."""

    miou: float
    """Mean IoU over the classes that are there or were predicted."""
    macc: float
    """Mean share of a class's points that are right, over the classes that are there."""
    overall_accuracy: float
    """Share of points that are right."""
    iou: Float[Tensor, " c"]
    """NaN where a class is neither there nor predicted."""


def scene_scores(counts: Int[Tensor, "c c"]) -> SceneScores:
    """Score a confusion matrix of points, classes by predicted classes."""
    hits, there = counts.diagonal().double(), counts.sum(1).double()
    iou = hits / (there + counts.sum(0).double() - hits)
    share = hits / there
    return SceneScores(
        float(iou.nanmean()), float(share.nanmean()), float(hits.sum() / there.sum()), iou
    )
