"""Rooms in pieces: random columns to train on, overlapping windows that cover each point to test.

As PointNet introduced it: columns of 1 m x 1 m over the full height, rooms drawn in proportion to
their points [1].

[1] Qi et al., arXiv:1612.00593; Qi et al., arXiv:1706.02413 (whole-room testing).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from recon.data.dataset import Cloud, DatasetView, PointCloudDataset, resample_cloud
from recon.data.prepared.dataset import PreparedDataset

MAX_TRIES = 100
Bounds = tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]


class RoomBlocks(PointCloudDataset):
    """Random columns of rooms, z up: as many a room as its share of all points asks for.

    A column is `width` metres wide around a random point and holds more than `fewest` points where
    the room has such a place; `size` of them are drawn. Its x and y are relative to its centre, z
    to the room's lowest point, and `location` is the place in the room, each axis in [0, 1].
    With `skip`, rooms that cannot be read are left out, and `skipped` says why.
    """

    def __init__(
        self,
        datasets: Sequence[PointCloudDataset],
        *,
        num_points: int = 2048,
        width: float = 1.0,
        min_points: int = 1024,
        rate: float = 1.0,
        skip_unreadable: bool = False,
    ) -> None:
        self.num_points, self.width, self.min_points = num_points, width, min_points
        first = datasets[0]
        self.point_classes, self.up = first.point_classes, first.up
        # Points of each class in all rooms.
        self.label_counts = np.zeros(len(self.point_classes), dtype=np.int64)
        # Text takes seconds a room: it is read once, here. Prepared rooms are mapped when drawn.
        self._rooms: list[Cloud | tuple[PointCloudDataset, int]] = []
        self._bounds, self.skipped, counts, names = list[Bounds](), list[str](), [], []
        for data, row in [(member, row) for member in datasets for row in range(len(member))]:
            try:
                room = data.cloud(row)
            except (ValueError, OSError) as error:
                if not skip_unreadable:
                    raise
                self.skipped.append(str(error))
                continue
            self._rooms.append((data, row) if isinstance(data, PreparedDataset) else room)
            self._bounds.append((room.points.min(0), room.points.max(0)))
            counts.append(len(room.points))
            names.append(data.ids[row])
            if room.point_labels is not None and self.point_classes:
                known = room.point_labels[room.point_labels >= 0]
                self.label_counts += np.bincount(known, minlength=len(self.label_counts))
        if not names:
            raise ValueError(f"there are no rooms to draw columns from {self.skipped[:1] or ''}")
        share = np.array(counts) / sum(counts)
        draws = np.rint(max(1, int(sum(counts) * rate / num_points)) * share).astype(int)
        self._room_of = np.repeat(np.arange(len(names)), np.maximum(1, draws))
        self.ids = [f"{names[room]}#{draw}" for draw, room in enumerate(self._room_of)]

    def _room(self, number: int) -> Cloud:
        held = self._rooms[number]
        return held if isinstance(held, Cloud) else held[0].cloud(held[1])

    def cloud(self, index: int) -> Cloud:
        return self.sample_cloud(index, seed=index)

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        number = int(self._room_of[index])
        room = self._room(number)
        rng = np.random.default_rng(seed)
        best, center = np.empty(0, dtype=np.int64), room.points[0, :2]
        for _ in range(MAX_TRIES):
            middle = room.points[rng.integers(len(room.points)), :2]
            rows = np.flatnonzero(_within(room.points, middle - self.width / 2, self.width))
            if len(rows) > len(best):
                best, center = rows, middle
            if len(best) > self.min_points:
                break
        low, _ = self._bounds[number]
        column = resample_cloud(room.take(best), self.num_points, seed)
        origin = np.array([*center, low[2]], dtype=np.float32)
        location = compute_room_location(column.points, self._bounds[number])
        return column._replace(points=column.points - origin, location=location)


def compute_room_location(
    points: Float[np.ndarray, "n 3"], bounds: Bounds
) -> Float[np.ndarray, "n 3"]:
    """Return where points lie between a room's lowest and highest corner, each axis in [0, 1]."""
    low, high = bounds
    return (points - low) / np.maximum(high - low, 1e-6)


class WholeRooms(DatasetView):
    """Rooms as they are, with `location` where they are drawn to be tested."""

    def __init__(self, rooms: PointCloudDataset) -> None:
        super().__init__([rooms], [(0, row) for row in range(len(rooms))])

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        room = self.cloud(index)
        bounds = room.points.min(0), room.points.max(0)
        return room._replace(location=compute_room_location(room.points, bounds))


def _within(
    points: Float[np.ndarray, "n 3"], corner: Float[np.ndarray, " 2"], width: float
) -> Bool[np.ndarray, " n"]:
    x, y = points[:, 0], points[:, 1]
    return (x >= corner[0]) & (x <= corner[0] + width) & (y >= corner[1]) & (y <= corner[1] + width)


def iter_windows(
    points: Float[np.ndarray, "n 3"], *, width: float = 1.0, stride: float = 0.5
) -> Iterator[Int[np.ndarray, " m"]]:
    """Yield the rows of each window of a room, z up: together they hold every point.

    Windows of `width` metres step by `stride` over the floor; empty ones are left out.
    """
    if not 0 < stride <= width:
        raise ValueError(f"stride must lie in (0, width {width}], got {stride}")
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    steps = np.maximum(np.ceil((high - low - width) / stride).astype(int), 0) + 1
    # Sorted by x, a window looks only at the points of its stripe.
    order = np.argsort(points[:, 0], kind="stable")
    along = points[order, 0]
    for i in _met(points[:, 0], float(low[0]), stride, width, int(steps[0])):
        left = low[0] + i * stride
        last = np.inf if i == steps[0] - 1 else left + width
        stripe = order[np.searchsorted(along, left, "left") : np.searchsorted(along, last, "right")]
        y = points[stripe, 1]
        for j in _met(y, float(low[1]), stride, width, int(steps[1])):
            bottom = low[1] + j * stride
            top = np.inf if j == steps[1] - 1 else bottom + width
            if len(rows := stripe[(y >= bottom) & (y <= top)]):
                yield np.sort(rows)


def _met(
    along: Float[np.ndarray, " n"], low: float, stride: float, width: float, steps: int
) -> Int[np.ndarray, " w"]:
    """Return the windows along one axis that may hold points: empty ones cost nothing."""
    last = np.unique(np.floor((along - low) / stride).astype(np.int64))
    over = int(np.ceil(width / stride)) + 1
    near = np.unique(last[:, None] + np.arange(-over, 2))
    return np.unique(near.clip(0, steps - 1))


def iter_window_batches(
    rows: Int[np.ndarray, " m"], num_points: int, seed: int
) -> Iterator[Int[np.ndarray, " size"]]:
    """Yield a window's rows in random order, `size` at a time; the last is filled with repeats."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    missing = -len(rows) % num_points
    filled = np.concatenate([shuffled, rng.choice(rows, missing)])
    yield from filled.reshape(-1, num_points)
