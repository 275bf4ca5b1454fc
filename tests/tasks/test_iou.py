"""IoUs against loops over points, with classes missing in every way."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from recon.tasks.iou import confusion, part_iou, part_scores, predict_parts, scene_scores


def slow_iou(predicted: Tensor, labels: Tensor, number: int) -> float:
    """Count one point after the other; NaN where the class is in neither."""
    both = either = 0
    for guess, label in zip(predicted.tolist(), labels.tolist(), strict=True):
        if label == -1:
            continue
        both += guess == number and label == number
        either += guess == number or label == number
    return both / either if either else math.nan


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_scored_by_definition(seed: int) -> None:
    torch.manual_seed(seed)
    own = [1, 3, 4]
    predicted = torch.tensor(own)[torch.randint(0, 2 + seed % 2, (60,))]
    labels = torch.tensor([*own, -1])[torch.randint(0, 4, (60,))]
    if seed == 4:  # a part that is neither there nor predicted
        labels[labels == 4] = 1
        predicted[predicted == 4] = 3
    known = [slow_iou(predicted, labels, part) for part in own]
    known = [1.0 if math.isnan(value) else value for value in known]
    assert part_iou(confusion(predicted, labels, 6), own) == pytest.approx(sum(known) / 3)


def test_parts_by_hand() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    counts = confusion(predicted, labels, 4)
    assert part_iou(counts, [0, 1]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert part_iou(counts, [0, 1, 2]) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert part_iou(confusion(labels, labels, 4), [0, 1, 2, 3]) == 1.0
    assert part_iou(confusion(labels[:0], labels[:0], 4), [0, 1]) == 1.0


def test_predictions_stay_within_the_objects_own_parts() -> None:
    scores = torch.tensor([[9.0, 1.0, 2.0, 8.0], [0.0, 3.0, 2.0, 9.0]])
    assert predict_parts(scores, [1, 2]).tolist() == [2, 1]


def test_shapes_are_averaged_over_all_and_by_class() -> None:
    found = part_scores(torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0, 0, 2]), 3)
    assert found.instance_miou == pytest.approx(0.5)
    assert found.class_miou == pytest.approx((0.3 + 0.9) / 2)
    assert math.isnan(found.per_class[1])


@pytest.mark.parametrize("seed", range(4))
def test_scenes_are_scored_by_definition(seed: int) -> None:
    torch.manual_seed(seed)
    labels, predicted = torch.randint(0, 5, (2, 200)).unbind()
    labels[labels == seed], predicted[predicted == 4] = 4, 0  # one is never there, one unpredicted
    if seed == 3:
        predicted[predicted == 3] = 0  # one is in neither
    labels[:20] = -1
    found = scene_scores(confusion(predicted, labels, 5))
    known = [slow_iou(predicted, labels, number) for number in range(5)]
    assert found.iou.tolist() == pytest.approx(known, nan_ok=True)
    there = [value for value in known if not math.isnan(value)]
    assert found.miou == pytest.approx(sum(there) / len(there))
    kept = labels != -1
    assert found.overall_accuracy == pytest.approx(
        float((labels == predicted)[kept].float().mean())
    )
    shares = [
        float((predicted[labels == n] == n).float().mean()) for n in range(5) if (labels == n).any()
    ]
    assert found.macc == pytest.approx(sum(shares) / len(shares))


def test_scenes_agree_with_torchmetrics_where_all_classes_are_there() -> None:
    torch.manual_seed(0)
    labels, predicted = torch.randint(0, 4, (2, 500)).unbind()
    theirs = multiclass_jaccard_index(predicted, labels, 4, average="none")
    assert torch.allclose(scene_scores(confusion(predicted, labels, 4)).iou.float(), theirs)
