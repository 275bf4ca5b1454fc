"""Segment a whole room by overlapping sliding windows, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recon.data.batch import Clouds
from recon.data.datasets.rooms import iter_window_batches, iter_windows
from recon.tasks.iou import IGNORE_INDEX, confusion


class SlidingWindowConfig(NamedTuple):
    """Cover a room with windows `width` meters wide, `stride` meters apart.

    The network takes `num_points` points of a window at a time, in batches of `batch_size`, and
    averages the log-probabilities of `votes` random groupings of the points.
    """

    num_points: int = 2048
    width: float = 1.0
    stride: float = 0.5
    votes: int = 3
    batch_size: int = 32


class RoomPrediction(NamedTuple):
    """Predictions for a room of N points."""

    log_probs: Float[Tensor, "n c"]
    """Mean log-probabilities in the order of the points."""
    window_confusion: Int[Tensor, "c c"]
    """Confusion matrix of all window predictions of the first vote, before they are averaged."""


class WindowBatch(NamedTuple):
    """Point indices of a batch of windows; a window with too few points repeats some of them."""

    indices: Int[np.ndarray, "b size"]
    is_original: Bool[np.ndarray, "b size"]
    """False for repeated points."""


def iter_room_batches(
    points: Float[Tensor, "n 3"], config: SlidingWindowConfig, seed: int
) -> Iterator[WindowBatch]:
    """Yield batches of windows; each point is in at least one of them."""
    samples: list[tuple[np.ndarray, np.ndarray]] = []
    windows = iter_windows(points.numpy(), width=config.width, stride=config.stride)
    for number, rows in enumerate(windows):
        for count, indices in enumerate(
            iter_window_batches(rows, config.num_points, seed + number)
        ):
            num_left = len(rows) - count * config.num_points
            samples.append((indices, np.arange(config.num_points) < num_left))
            if len(samples) == config.batch_size:
                yield WindowBatch(*map(np.stack, zip(*samples, strict=True)))
                samples = []
    if samples:
        yield WindowBatch(*map(np.stack, zip(*samples, strict=True)))


@torch.no_grad()
def segment_room(
    network: Callable[[Clouds], Float[Tensor, "b n c"]],
    room: Clouds,
    classes: int,
    config: SlidingWindowConfig,
    votes: int,
    seed: int,
) -> RoomPrediction:
    """Segment a room (a batch of one, in meters, z up); each vote predicts every point.

    Windows are centered as in training: x and y relative to the middle of the window, z relative to
    the lowest point of the room. Memory contains the room and one row of scores per point.
    """
    points = room.points[0].cpu()
    lowest = points[:, 2].min()
    device, count = room.points.device, len(points)
    total, num_predictions = torch.zeros(count, classes), torch.zeros(count)
    window_confusion = torch.zeros(classes, classes, dtype=torch.long)
    labels = None if room.point_labels is None else room.point_labels[0].cpu()
    for vote in range(votes):
        for indices, is_original in iter_room_batches(points, config, seed + vote * count):
            index, valid = torch.from_numpy(indices), torch.from_numpy(is_original).flatten()
            clouds = {k: v[0][index.to(device)] for k, v in room._asdict().items() if v is not None}
            clouds.pop("point_labels", None)  # the network must not see labels
            low, high = clouds["points"].amin(1), clouds["points"].amax(1)
            origin = ((low + high) / 2).index_fill(1, torch.tensor(2, device=device), lowest.item())
            clouds["points"] = clouds["points"] - origin[:, None]
            log_probs = network(Clouds(**clouds)).flatten(0, 1).to(total)[valid]
            rows = index.flatten()[valid]
            total.index_add_(0, rows, log_probs)
            num_predictions.index_add_(0, rows, torch.ones(len(rows)))
            if vote == 0 and labels is not None:
                row_labels = labels[rows]
                if (row_labels != IGNORE_INDEX).any():
                    window_confusion += confusion(log_probs.argmax(1), row_labels, classes)
    return RoomPrediction(total / num_predictions[:, None], window_confusion)
