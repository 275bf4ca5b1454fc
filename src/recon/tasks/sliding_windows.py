"""A whole room by overlapping windows, in bounded memory."""

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
    """How a room is covered: windows of `width` metres, `stride` apart, `size` points at a time."""

    num_points: int = 2048
    width: float = 1.0
    stride: float = 0.5
    votes: int = 3
    batch_size: int = 32


class RoomPrediction(NamedTuple):
    """What a network says of a room of N points."""

    log_probs: Float[Tensor, "n c"]
    """Mean log-probabilities, in the order of the points."""
    window_confusion: Int[Tensor, "c c"]
    """Confusion of every single prediction of the first vote, before they are merged."""


class WindowBatch(NamedTuple):
    """A batch of columns: rows of points, some repeated where a column has too few."""

    indices: Int[np.ndarray, "b size"]
    is_original: Bool[np.ndarray, "b size"]
    """Whether a row is no repetition."""


def iter_room_batches(
    points: Float[Tensor, "n 3"], config: SlidingWindowConfig, seed: int
) -> Iterator[WindowBatch]:
    """Yield batches of columns; each point is in at least one of them."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    pieces = iter_windows(points.numpy(), width=config.width, stride=config.stride)
    for number, rows in enumerate(pieces):
        for count, piece in enumerate(iter_window_batches(rows, config.num_points, seed + number)):
            waiting.append(
                (piece, np.arange(config.num_points) < len(rows) - count * config.num_points)
            )
            if len(waiting) == config.batch_size:
                yield WindowBatch(*map(np.stack, zip(*waiting, strict=True)))
                waiting = []
    if waiting:
        yield WindowBatch(*map(np.stack, zip(*waiting, strict=True)))


@torch.no_grad()
def segment_room(
    network: Callable[[Clouds], Float[Tensor, "b n c"]],
    room: Clouds,
    classes: int,
    config: SlidingWindowConfig,
    votes: int,
    seed: int,
) -> RoomPrediction:
    """Segment a room, a batch of one, z up and in metres; every point is predicted each vote.

    Columns are given to the network as training draws them: x and y relative to their middle, z to
    the room's lowest point. Beside the room, memory holds a row of scores for each point.
    """
    points = room.points[0].cpu()
    lowest = points[:, 2].min()
    device, count = room.points.device, len(points)
    total, seen = torch.zeros(count, classes), torch.zeros(count)
    single = torch.zeros(classes, classes, dtype=torch.long)
    labels = None if room.point_labels is None else room.point_labels[0].cpu()
    for vote in range(votes):
        for rows, own in iter_room_batches(points, config, seed + vote * count):
            index, real = torch.from_numpy(rows), torch.from_numpy(own).flatten()
            # The labels stay behind: no network sees them.
            cut = {k: v[0][index.to(device)] for k, v in room._asdict().items() if v is not None}
            cut.pop("point_labels", None)
            low, high = cut["points"].amin(1), cut["points"].amax(1)
            middle = ((low + high) / 2).index_fill(1, torch.tensor(2, device=device), lowest.item())
            cut["points"] = cut["points"] - middle[:, None]
            scores = network(Clouds(**cut)).flatten(0, 1).to(total)[real]
            flat = index.flatten()[real]
            total.index_add_(0, flat, scores)
            seen.index_add_(0, flat, torch.ones(len(flat)))
            if vote == 0 and labels is not None:
                known = labels[flat]
                if (known != IGNORE_INDEX).any():
                    single += confusion(scores.argmax(1), known, classes)
    return RoomPrediction(total / seen[:, None], single)
