"""Sliding windows over rooms: complete predictions, centered inputs, window confusion."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recon.data.batch import Clouds
from recon.data.dataset import resample_rows
from recon.tasks.sliding_windows import (
    SlidingWindowConfig,
    cover_points,
    iter_room_batches,
    segment_room,
    segment_shapes,
)

CONFIG = SlidingWindowConfig(num_points=64, batch_size=3, votes=2)


def build_room(count: int = 3000) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(1, count, 3) * torch.tensor([3.0, 2.2, 2.5]) + torch.tensor([5.0, -7.0, 1.0])


def collect_predicted_rows(points: Tensor, seed: int) -> np.ndarray:
    """Return the rows of all predicted points, without repetitions within a window."""
    batches = iter_room_batches(points, CONFIG, seed)
    return np.concatenate([indices[is_original] for indices, is_original in batches])


def test_each_vote_predicts_every_point() -> None:
    points = build_room()[0]
    for seed in range(2):
        rows = collect_predicted_rows(points, seed)
        assert len(np.unique(rows)) == len(points)


def predict_colors(clouds: Clouds) -> Tensor:
    """Return the red channel r of each point as scores (r, 1 - r)."""
    red = clouds.colors[..., 0]
    return torch.stack([red, 1 - red], -1)


def test_scores_are_assigned_to_their_points() -> None:
    points = build_room()
    red = torch.rand(1, points.shape[1], 1)
    clouds = Clouds(points, colors=red.expand(-1, -1, 3))
    prediction = segment_room(predict_colors, clouds, 2, CONFIG, 2, seed=0)
    assert torch.allclose(prediction.log_probs[:, 0], red[0, :, 0], atol=1e-5)


def test_windows_are_centered_as_in_training() -> None:
    inputs = []

    def record_input(clouds: Clouds) -> Tensor:
        inputs.append(clouds)
        return torch.zeros(*clouds.points.shape[:2], 2)

    points = build_room()
    clouds = Clouds(
        points, location=torch.rand_like(points), point_labels=torch.zeros(1, 3000).long()
    )
    segment_room(record_input, clouds, 2, CONFIG, 1, seed=0)
    for window in inputs:
        assert window.point_labels is None
        assert window.location is not None
        assert window.points[..., :2].abs().max() <= 0.5 + 1e-4
        assert (window.points[..., 2] >= -1e-6).all()
    assert max(float(window.points[..., 2].max()) for window in inputs) > 2.4


def test_window_confusion_counts_each_prediction_of_the_first_vote() -> None:
    points = build_room(500)
    labels = torch.randint(0, 2, (1, 500))
    labels[0, :100] = -1
    clouds = Clouds(
        points, colors=labels.unsqueeze(-1).expand(-1, -1, 3).float(), point_labels=labels
    )
    prediction = segment_room(predict_colors, clouds, 2, CONFIG, 2, seed=0)
    rows = torch.from_numpy(collect_predicted_rows(points[0], 0))
    assert int(prediction.window_confusion.sum()) == int((labels[0][rows] >= 0).sum())


def test_empty_windows_around_an_outlier_are_skipped() -> None:
    points = torch.cat([build_room()[0], torch.tensor([[1e6, 1e6, 0.0]])])
    assert len(np.unique(collect_predicted_rows(points, 0))) == len(points)


@pytest.mark.parametrize("count", [1, 5, 70])
def test_rooms_with_few_points_are_segmented(count: int) -> None:
    points = build_room(count)
    clouds = Clouds(points, colors=torch.ones_like(points))
    assert segment_room(predict_colors, clouds, 2, CONFIG, 1, seed=0).log_probs.shape == (count, 2)


@pytest.mark.parametrize("num_points", [None, 1, 16, 50, 64, 100])
@pytest.mark.parametrize("vote", [0, 1])
@pytest.mark.parametrize("count", [1, 50, 64, 65, 200])
def test_each_point_of_a_shape_is_new_in_one_pass(
    count: int, num_points: int | None, vote: int
) -> None:
    passes = cover_points(count, num_points, 3, vote)
    new = np.concatenate([part.rows[part.is_new] for part in passes])
    assert sorted(new) == list(range(count))
    size = num_points or count
    assert {len(part.rows) for part in passes} == {size}
    assert len(passes) == -(-count // size)
    for part in passes:  # as in training: no point twice, unless there are too few
        assert len({*part.rows.tolist()}) == min(count, size)


def test_the_first_pass_has_the_points_drawn_in_training() -> None:
    for count, num_points in ((700, 64), (50, 64)):
        drawn = resample_rows(count, num_points, 7)
        assert np.array_equal(cover_points(count, num_points, 7)[0].rows, drawn)
    assert np.array_equal(cover_points(64, 64, 7)[0].rows, np.arange(64))
    first, second = (cover_points(64, 64, 7, vote)[0].rows for vote in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("votes", [1, 3])
@pytest.mark.parametrize("num_points", [None, 16, 90])
def test_scores_of_shapes_are_assigned_to_their_points(num_points: int | None, votes: int) -> None:
    calls = []

    def predict(clouds: Clouds, labels: Tensor) -> Tensor:
        calls.append(clouds.points.shape)
        assert clouds.point_labels is None
        return clouds.points + labels[:, None, None]

    shapes = [
        Clouds(torch.rand(1, size, 3), point_labels=torch.zeros(1, size).long())
        for size in (30, 90, 64, 30)
    ]
    labels = torch.tensor([1, 2, 3, 4])
    scores = segment_shapes(predict, shapes, labels, seed=5, num_points=num_points, votes=votes)
    for shape, label, predicted in zip(shapes, labels, scores, strict=True):
        assert torch.allclose(predicted, shape.points[0] + label, atol=1e-6)
    assert max(batch for batch, _, _ in calls) <= len(shapes)
    assert {points for _, points, _ in calls} == (
        {30, 64, 90} if num_points is None else {num_points}
    )
