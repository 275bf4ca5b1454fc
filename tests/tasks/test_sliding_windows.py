"""Whole rooms: every point predicted, what a network sees, memory."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recon.data.batch import Clouds
from recon.tasks.sliding_windows import SlidingWindowConfig, iter_room_batches, segment_room

HOW = SlidingWindowConfig(num_points=64, batch_size=3, votes=2)


def room(count: int = 3000) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(1, count, 3) * torch.tensor([3.0, 2.2, 2.5]) + torch.tensor([5.0, -7.0, 1.0])


def test_every_point_is_predicted_in_each_vote() -> None:
    points = room()[0]
    for seed in range(2):
        met = np.concatenate([rows[own] for rows, own in iter_room_batches(points, HOW, seed)])
        assert len(np.unique(met)) == len(points)


def by_place(clouds: Clouds) -> Tensor:
    """Say of each point what its colour tells: its number, carried along."""
    number = clouds.colors[..., 0]
    return torch.stack([number, 1 - number], -1)


def test_scores_come_back_to_their_points() -> None:
    points = room()
    number = torch.rand(1, points.shape[1], 1)
    clouds = Clouds(points, colors=number.expand(-1, -1, 3))
    found = segment_room(by_place, clouds, 2, HOW, 2, seed=0)
    assert torch.allclose(found.log_probs[:, 0], number[0, :, 0], atol=1e-5)


def test_columns_look_as_in_training() -> None:
    seen = []

    def watch(clouds: Clouds) -> Tensor:
        seen.append(clouds)
        return torch.zeros(*clouds.points.shape[:2], 2)

    points = room()
    clouds = Clouds(
        points, location=torch.rand_like(points), point_labels=torch.zeros(1, 3000).long()
    )
    segment_room(watch, clouds, 2, HOW, 1, seed=0)
    for some in seen:
        assert some.point_labels is None
        assert some.location is not None
        assert some.points[..., :2].abs().max() <= 0.5 + 1e-4
        assert (some.points[..., 2] >= -1e-6).all()
    assert max(float(some.points[..., 2].max()) for some in seen) > 2.4


def test_single_windows_are_counted_once_a_prediction() -> None:
    points = room(500)
    labels = torch.randint(0, 2, (1, 500))
    labels[0, :100] = -1
    clouds = Clouds(
        points, colors=labels.unsqueeze(-1).expand(-1, -1, 3).float(), point_labels=labels
    )
    found = segment_room(by_place, clouds, 2, HOW, 2, seed=0)
    rows = np.concatenate([rows[own] for rows, own in iter_room_batches(points[0], HOW, 0)])
    assert int(found.window_confusion.sum()) == int((labels[0][torch.from_numpy(rows)] >= 0).sum())


def test_a_stray_point_costs_no_empty_windows() -> None:
    points = torch.cat([room()[0], torch.tensor([[1e6, 1e6, 0.0]])])
    met = np.concatenate([rows[own] for rows, own in iter_room_batches(points, HOW, 0)])
    assert len(np.unique(met)) == len(points)


@pytest.mark.parametrize("count", [1, 5, 70])
def test_small_rooms_work(count: int) -> None:
    points = room(count)
    clouds = Clouds(points, colors=torch.ones_like(points))
    assert segment_room(by_place, clouds, 2, HOW, 1, seed=0).log_probs.shape == (count, 2)
