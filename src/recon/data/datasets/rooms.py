"""Room data: random blocks for training, overlapping windows that cover every point for testing.

As introduced by PointNet, blocks are 1 m x 1 m columns over the full height, and rooms are sampled
in proportion to their number of points [1].

[1] Qi et al., arXiv:1612.00593; Qi et al., arXiv:1706.02413 (whole-room testing).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from recon.data.dataset import Cloud, DatasetView, PointCloudDataset, resample_cloud
from recon.data.prepared.dataset import PreparedDataset

MAX_TRIES = 100
"""Maximum number of random centers tried for a block with enough points."""
Bounds = tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]


class RoomBlocks(PointCloudDataset):
    """Draw random blocks of rooms, z up, in proportion to the points of each room.

    A block is `width` meters wide, centered at a random point. It contains more than `min_points`
    points if such a block is found, and `num_points` of them are drawn. x and y are relative to
    the center of the block, z to the lowest point of the room; `location` is the position in the
    room, each axis in [0, 1]. An epoch draws `rate` times the total number of points. Rooms whose
    number of points is known without reading them are read on first use, or by `read_rooms`. With
    `skip_unreadable`, unreadable rooms are left out and `skipped` lists their errors.
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
        self._skip_unreadable, self.skipped = skip_unreadable, list[str]()
        self._label_counts = np.zeros(len(self.point_classes), dtype=np.int64)
        # Text files take seconds per room, so they are read once. Prepared rooms are memory-mapped.
        self._sources: list[tuple[PointCloudDataset, int]] = []
        self._rooms, self._bounds = dict[int, Cloud](), dict[int, Bounds]()
        counts, names = list[int](), list[str]()
        for data, row in [(member, row) for member in datasets for row in range(len(member))]:
            self._sources.append((data, row))
            try:
                counts.append(data.count_points(row) or len(self._read_room(len(counts)).points))
            except (ValueError, OSError) as error:
                if not skip_unreadable:
                    raise
                self._sources.pop()
                self.skipped.append(str(error))
                continue
            names.append(data.ids[row])
        if not names:
            reason = self.skipped[0] if self.skipped else "the split is empty"
            raise ValueError(f"there are no rooms to draw blocks from: {reason}")
        shares = np.array(counts) / sum(counts)
        num_blocks = np.rint(max(1, int(sum(counts) * rate / num_points)) * shares).astype(int)
        self._room_indices = np.repeat(np.arange(len(names)), np.maximum(1, num_blocks))
        self.ids = [f"{names[room]}#{block}" for block, room in enumerate(self._room_indices)]

    @property
    def label_counts(self) -> Int[np.ndarray, " classes"]:
        """Return the number of points of each class in all rooms; reads rooms not read yet.

        Raises ValueError if no point has a label.
        """
        self.read_rooms()
        if len(self.point_classes) and not self._label_counts.any():
            raise ValueError(f"{self._sources[0][0].ids[0]}: no point of the rooms has a label")
        return self._label_counts

    def read_rooms(self) -> None:
        """Read all rooms that are not read yet."""
        for index in range(len(self._sources)):
            try:
                self._read_room(index)
            except (ValueError, OSError) as error:
                if not self._skip_unreadable:
                    raise
                self.skipped = list(dict.fromkeys([*self.skipped, str(error)]))

    def _read_room(self, index: int) -> Cloud:
        if index in self._rooms:
            return self._rooms[index]
        data, row = self._sources[index]
        room = data.cloud(row)
        if not isinstance(data, PreparedDataset):
            self._rooms[index] = room
        if index not in self._bounds:
            self._bounds[index] = room.points.min(0), room.points.max(0)
            if room.point_labels is not None and len(self.point_classes):
                labels = room.point_labels[room.point_labels >= 0]
                self._label_counts += np.bincount(labels, minlength=len(self._label_counts))
        return room

    def cloud(self, index: int) -> Cloud:
        return self.sample_cloud(index, seed=index)

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        room_index = int(self._room_indices[index])
        room = self._read_room(room_index)
        rng = np.random.default_rng(seed)
        block_rows, center = np.empty(0, dtype=np.int64), room.points[0, :2]
        for _ in range(MAX_TRIES):
            candidate = room.points[rng.integers(len(room.points)), :2]
            rows = _find_points_inside(room.points, candidate - self.width / 2, self.width)
            if len(rows) > len(block_rows):
                block_rows, center = rows, candidate
            if len(block_rows) > self.min_points:
                break
        low, _ = self._bounds[room_index]
        block = resample_cloud(room.take(block_rows), self.num_points, seed)
        origin = np.array([*center, low[2]], dtype=np.float32)
        location = compute_room_location(block.points, self._bounds[room_index])
        return block._replace(points=block.points - origin, location=location)


def compute_room_location(
    points: Float[np.ndarray, "n 3"], bounds: Bounds
) -> Float[np.ndarray, "n 3"]:
    """Normalize coordinates by the bounds of a room, each axis to [0, 1]."""
    low, high = bounds
    return (points - low) / np.maximum(high - low, 1e-6)


class WholeRooms(DatasetView):
    """Whole rooms for testing, with `location` added to each sample."""

    def __init__(self, rooms: PointCloudDataset) -> None:
        super().__init__([rooms], [(0, row) for row in range(len(rooms))])

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        room = self.cloud(index)
        bounds = room.points.min(0), room.points.max(0)
        return room._replace(location=compute_room_location(room.points, bounds))


def _find_points_inside(
    points: Float[np.ndarray, "n 3"], corner: Float[np.ndarray, " 2"], width: float
) -> Int[np.ndarray, " m"]:
    """Return the rows of the points in a square of the floor with this lower corner."""
    x, y = points[:, 0], points[:, 1]
    return np.flatnonzero(
        (x >= corner[0]) & (x <= corner[0] + width) & (y >= corner[1]) & (y <= corner[1] + width)
    )


def iter_windows(
    points: Float[np.ndarray, "n 3"], *, width: float = 1.0, stride: float = 0.5
) -> Iterator[Int[np.ndarray, " m"]]:
    """Yield the point rows of each sliding window of a room, z up; they cover every point.

    Windows of `width` meters move by `stride` meters over the floor. Empty windows are left out.
    Raises ValueError for a stride outside (0, width].
    """
    if not 0 < stride <= width:
        raise ValueError(f"stride must be in (0, width {width}], got {stride}")
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    steps = np.maximum(np.ceil((high - low - width) / stride).astype(int), 0) + 1
    # Points are sorted by x, so that a window searches only the points of its stripe.
    order = np.argsort(points[:, 0], kind="stable")
    sorted_x = points[order, 0]
    for i in _find_occupied_windows(points[:, 0], float(low[0]), stride, width, int(steps[0])):
        left = low[0] + i * stride
        right = np.inf if i == steps[0] - 1 else left + width
        first = np.searchsorted(sorted_x, left, "left")
        last = np.searchsorted(sorted_x, right, "right")
        stripe = order[first:last]
        y = points[stripe, 1]
        for j in _find_occupied_windows(y, float(low[1]), stride, width, int(steps[1])):
            bottom = low[1] + j * stride
            top = np.inf if j == steps[1] - 1 else bottom + width
            if len(rows := stripe[(y >= bottom) & (y <= top)]):
                yield np.sort(rows)


def _find_occupied_windows(
    coordinates: Float[np.ndarray, " n"], low: float, stride: float, width: float, steps: int
) -> Int[np.ndarray, " w"]:
    """Return the indices of windows along one axis that may contain points, to skip the others."""
    cells = np.unique(np.floor((coordinates - low) / stride).astype(np.int64))
    overlap = int(np.ceil(width / stride)) + 1
    windows = np.unique(cells[:, None] + np.arange(-overlap, 2))
    return np.unique(windows.clip(0, steps - 1))


def iter_window_batches(
    rows: Int[np.ndarray, " m"], num_points: int, seed: int
) -> Iterator[Int[np.ndarray, " num_points"]]:
    """Yield the rows of a window in random order, `num_points` at a time, the last with repeats."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    num_repeats = -len(rows) % num_points
    padded = np.concatenate([shuffled, rng.choice(rows, num_repeats)])
    yield from padded.reshape(-1, num_points)
