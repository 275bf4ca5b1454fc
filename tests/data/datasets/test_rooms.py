"""Rooms: random blocks and sliding windows."""

import numpy as np
import pytest

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.rooms import RoomBlocks, iter_window_batches, iter_windows

RNG = np.random.default_rng(0)


class Rooms(PointCloudDataset):
    """Two boxes filled with points, the second with three times as many."""

    ids = ("small", "large")
    up = "z"

    def cloud(self, index: int) -> Cloud:
        rng = np.random.default_rng(index)
        count = (3000, 9000)[index]
        points = rng.uniform((5, 5, 2), (8, 7, 5), (count, 3)).astype(np.float32)
        labels = (points[:, 2] > 3).astype(np.int64)
        colors = rng.integers(0, 256, (count, 3)).astype(np.uint8)
        return Cloud(points, colors=colors, point_labels=labels)


def test_blocks_are_parts_of_their_room() -> None:
    blocks = RoomBlocks([Rooms()], num_points=512, width=1.0, min_points=100)
    for index in (0, len(blocks) - 1):
        block = blocks.sample_cloud(index, seed=3)
        assert block.points.shape == (512, 3)
        assert np.abs(block.points[:, :2]).max() <= 0.5 + 1e-5
        assert block.points[:, 2].min() >= 0
        assert block.points[:, 2].max() <= 3
        assert 0 <= block.location.min() <= block.location.max() <= 1
        # Height, position in the room, and labels are consistent.
        room = Rooms().cloud(0 if blocks.ids[index].startswith("small") else 1)
        low, high = room.points.min(0), room.points.max(0)
        points = block.location * (high - low) + low
        assert np.allclose(points[:, 2] - low[2], block.points[:, 2], atol=1e-5)
        assert np.array_equal(block.point_labels, points[:, 2] > 3)


def test_rooms_have_blocks_in_proportion_to_their_points() -> None:
    blocks = RoomBlocks([Rooms()], num_points=10)
    small = sum(name.startswith("small") for name in blocks.ids)
    assert small / len(blocks) == pytest.approx(0.25, abs=0.01)
    assert len(RoomBlocks([Rooms()], num_points=10, rate=0.5)) == pytest.approx(
        len(blocks) / 2, abs=1
    )


def test_blocks_depend_on_their_seed() -> None:
    blocks = RoomBlocks([Rooms()], num_points=64, min_points=10)
    assert np.array_equal(blocks.sample_cloud(0, 1).points, blocks.sample_cloud(0, 1).points)
    assert not np.array_equal(blocks.sample_cloud(0, 1).points, blocks.sample_cloud(0, 2).points)


def test_rooms_without_dense_blocks_give_their_densest() -> None:
    blocks = RoomBlocks([Rooms()], num_points=4096, min_points=10**6)
    for seed in range(5):
        block = blocks.sample_cloud(0, seed)
        assert block.points.shape == (4096, 3)
        assert np.abs(block.points[:, :2]).max() <= 0.5 + 1e-5


def test_unreadable_rooms_are_skipped_on_request() -> None:
    class PartlyUnreadableRooms(Rooms):
        def cloud(self, index: int) -> Cloud:
            if index == 0:
                raise ValueError("small: is empty")
            return super().cloud(index)

    with pytest.raises(ValueError, match="small: is empty"):
        RoomBlocks([PartlyUnreadableRooms()])
    blocks = RoomBlocks([PartlyUnreadableRooms()], skip_unreadable=True)
    assert blocks.skipped == ["small: is empty"]
    assert all(name.startswith("large") for name in blocks.ids)


@pytest.mark.parametrize("extent", [(3.0, 2.0), (0.4, 0.3), (1.0, 5.05), (7.3, 0.9)])
def test_windows_cover_every_point_and_have_bounded_size(
    extent: tuple[float, float],
) -> None:
    points = RNG.uniform((-3, 2, 0), (-3 + extent[0], 2 + extent[1], 3), (4000, 3)).astype(
        np.float32
    )
    counts = np.zeros(len(points), dtype=int)
    for rows in iter_windows(points, width=1.0, stride=0.5):
        assert len(set(rows)) == len(rows)
        counts[rows] += 1
        assert np.ptp(points[rows, :2], axis=0).max() <= 1.5 + 1e-5
    assert counts.min() >= 1


def test_overlapping_windows_contain_inner_points_several_times() -> None:
    points = RNG.uniform((0, 0, 0), (4, 4, 3), (4000, 3)).astype(np.float32)
    counts = np.zeros(len(points), dtype=int)
    for rows in iter_windows(points, width=1.0, stride=0.5):
        counts[rows] += 1
    inner = (np.abs(points[:, :2] - 2) < 1).all(1)
    assert np.median(counts[inner]) == 4
    with pytest.raises(ValueError, match=r"stride must be in \(0, width 1.0\], got 2.0"):
        next(iter_windows(points, width=1.0, stride=2.0))


def test_window_batches_contain_all_points_of_the_window() -> None:
    rows = np.arange(100, 350)
    batches = [*iter_window_batches(rows, 64, seed=0)]
    assert [len(batch) for batch in batches] == [64] * 4
    assert set(np.concatenate(batches)) == set(rows)
    assert not np.array_equal(batches[0], next(iter_window_batches(rows, 64, seed=1)))
    assert [len(b) for b in iter_window_batches(np.arange(3), 64, seed=0)] == [64]
