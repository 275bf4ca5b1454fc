"""Segment all points: of rooms by overlapping sliding windows, of shapes by several passes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recon.data.batch import Clouds, concat_clouds
from recon.data.dataset import resample_rows
from recon.data.datasets.rooms import iter_window_batches, iter_windows
from recon.data.whole_clouds import take_points
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


class Pass(NamedTuple):
    """Points of a shape that the network takes at a time."""

    rows: Int[np.ndarray, " size"]
    is_new: Bool[np.ndarray, " size"]
    """False for points that are repeated, or predicted in another pass."""


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


def cover_points(count: int, num_points: int | None, seed: int, vote: int = 0) -> list[Pass]:
    """Divide the points of a shape into passes of `num_points`, None for all points at once.

    Each point is new in one pass. The first pass of the first vote has points drawn as in training.
    Others add points that were predicted before, so that the density is the same. Later
    votes have another order, since the network starts its sampling at the first point.
    """
    rng = np.random.default_rng((seed, vote))
    num_points = count if num_points is None else num_points
    order = np.arange(count) if vote == 0 else rng.permutation(count)
    if count <= num_points:
        rows = order[resample_rows(count, num_points, seed + vote)] if count < num_points else order
        return [Pass(rows, np.arange(num_points) < count)]
    first = order[resample_rows(count, num_points, seed)]
    left = rng.permutation(np.setdiff1d(order, first))
    num_added = -len(left) % num_points
    added = rng.choice(
        np.setdiff1d(order, left[num_added - num_points :]), num_added, replace=False
    )
    rows = np.concatenate([first, left, added]).reshape(-1, num_points)
    is_new = (np.arange(rows.size) < count).reshape(rows.shape)
    return [Pass(*part) for part in zip(rows, is_new, strict=True)]


@torch.no_grad()
def segment_shapes(
    network: Callable[[Clouds, Int[Tensor, " b"]], Float[Tensor, "b n c"]],
    shapes: Sequence[Clouds],
    labels: Int[Tensor, " s"],
    *,
    seed: int,
    num_points: int | None,
    votes: int = 1,
    batch_size: int | None = None,
) -> list[Float[Tensor, "n c"]]:
    """Return log-probabilities of all points of each shape, a batch of one; on the CPU.

    The network takes `num_points` points of a shape at a time (None takes all), in batches of
    `batch_size`, by default the number of shapes. Each vote predicts each point once, and the
    log-probabilities of votes are averaged.
    """
    passes = [
        (row, part)
        for row, shape in enumerate(shapes)
        for vote in range(votes)
        for part in cover_points(shape.points.shape[1], num_points, seed, vote)
    ]
    totals: dict[int, Tensor] = {}
    for batch in _group_by_size(passes, batch_size or len(shapes)):
        rows = [row for row, _ in batch]
        inputs = concat_clouds([_take_unlabeled(shapes[row], part.rows) for row, part in batch])
        log_probs = network(inputs, labels[rows]).cpu()
        log_probs = log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))
        for scores, (row, part) in zip(log_probs, batch, strict=True):
            empty = scores.new_zeros(shapes[row].points.shape[1], scores.shape[1])
            index = torch.from_numpy(part.rows[part.is_new])
            totals.setdefault(row, empty).index_add_(0, index, scores[part.is_new])
    return [totals[row] / votes for row in range(len(shapes))]


def _group_by_size(
    passes: Sequence[tuple[int, Pass]], batch_size: int
) -> Iterator[list[tuple[int, Pass]]]:
    """Yield batches of at most `batch_size` passes with the same number of points."""
    ordered = sorted(passes, key=lambda item: len(item[1].rows))
    for _, group in groupby(ordered, key=lambda item: len(item[1].rows)):
        items = [*group]
        yield from (items[i : i + batch_size] for i in range(0, len(items), batch_size))


def _take_unlabeled(shape: Clouds, rows: Int[np.ndarray, " m"]) -> Clouds:
    """Return some points of a batch of one cloud; the network must not see their labels."""
    index = torch.from_numpy(rows).to(shape.points.device)
    return take_points(shape._replace(point_labels=None), index)
