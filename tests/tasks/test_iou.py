"""IoU against loops over points, including absent and unpredicted classes."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from recon.tasks.iou import confusion, part_iou, part_scores, predict_parts, scene_scores


def naive_iou(predicted: Tensor, labels: Tensor, number: int) -> float:
    """Count point by point; NaN if the class is neither labeled nor predicted."""
    intersection = union = 0
    for guess, label in zip(predicted.tolist(), labels.tolist(), strict=True):
        if label == -1:
            continue
        intersection += guess == number and label == number
        union += guess == number or label == number
    return intersection / union if union else math.nan


@pytest.mark.parametrize("seed", range(5))
def test_part_iou_matches_its_definition(seed: int) -> None:
    torch.manual_seed(seed)
    parts = [1, 3, 4]
    predicted = torch.tensor(parts)[torch.randint(0, 2 + seed % 2, (60,))]
    labels = torch.tensor([*parts, -1])[torch.randint(0, 4, (60,))]
    if seed == 4:  # a part is neither labeled nor predicted
        labels[labels == 4] = 1
        predicted[predicted == 4] = 3
    expected = [naive_iou(predicted, labels, part) for part in parts]
    expected = [1.0 if math.isnan(value) else value for value in expected]
    assert part_iou(confusion(predicted, labels, 6), parts) == pytest.approx(sum(expected) / 3)


def test_part_iou_of_known_examples() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    counts = confusion(predicted, labels, 4)
    assert part_iou(counts, [0, 1]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert part_iou(counts, [0, 1, 2]) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert part_iou(confusion(labels, labels, 4), [0, 1, 2, 3]) == 1.0
    assert part_iou(confusion(labels[:0], labels[:0], 4), [0, 1]) == 1.0


def test_predictions_are_limited_to_the_parts_of_the_object() -> None:
    scores = torch.tensor([[9.0, 1.0, 2.0, 8.0], [0.0, 3.0, 2.0, 9.0]])
    assert predict_parts(scores, [1, 2]).tolist() == [2, 1]


def test_part_scores_average_over_shapes_and_over_classes() -> None:
    scores = part_scores(torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0, 0, 2]), 3)
    assert scores.instance_miou == pytest.approx(0.5)
    assert scores.class_miou == pytest.approx((0.3 + 0.9) / 2)
    assert math.isnan(scores.per_class[1])


@pytest.mark.parametrize("seed", range(4))
def test_scene_scores_match_their_definitions(seed: int) -> None:
    torch.manual_seed(seed)
    labels, predicted = torch.randint(0, 5, (2, 200)).unbind()
    labels[labels == seed], predicted[predicted == 4] = (
        4,
        0,
    )  # one not labeled, one not predicted
    if seed == 3:
        predicted[predicted == 3] = 0  # one is neither labeled nor predicted
    labels[:20] = -1
    scores = scene_scores(confusion(predicted, labels, 5))
    expected = [naive_iou(predicted, labels, number) for number in range(5)]
    assert scores.iou.tolist() == pytest.approx(expected, nan_ok=True)
    present = [value for value in expected if not math.isnan(value)]
    assert scores.miou == pytest.approx(sum(present) / len(present))
    labeled = labels != -1
    assert scores.overall_accuracy == pytest.approx(
        float((labels == predicted)[labeled].float().mean())
    )
    accuracies = [
        float((predicted[labels == n] == n).float().mean()) for n in range(5) if (labels == n).any()
    ]
    assert scores.macc == pytest.approx(sum(accuracies) / len(accuracies))


def test_scene_iou_matches_torchmetrics_if_all_classes_occur() -> None:
    torch.manual_seed(0)
    labels, predicted = torch.randint(0, 4, (2, 500)).unbind()
    expected = multiclass_jaccard_index(predicted, labels, 4, average="none")
    assert torch.allclose(scene_scores(confusion(predicted, labels, 4)).iou.float(), expected)
