import numpy as np
import pytest

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.rooms import RoomBlocks, iter_window_batches, iter_windows

RNG = np.random.default_rng(0)


class Rooms(PointCloudDataset):
    """Two boxes full of points, the second with three times as many."""

    ids = ("small", "large")
    up = "z"

    def cloud(self, index: int) -> Cloud:
        rng = np.random.default_rng(index)
        count = (3000, 9000)[index]
        points = rng.uniform((5, 5, 2), (8, 7, 5), (count, 3)).astype(np.float32)
        labels = (points[:, 2] > 3).astype(np.int64)
        colors = rng.integers(0, 256, (count, 3)).astype(np.uint8)
        return Cloud(points, colors=colors, point_labels=labels)


def test_a_column_is_cut_from_its_room() -> None:
    columns = RoomBlocks([Rooms()], num_points=512, width=1.0, min_points=100)
    for index in (0, len(columns) - 1):
        column = columns.sample_cloud(index, seed=3)
        assert column.points.shape == (512, 3)
        assert np.abs(column.points[:, :2]).max() <= 0.5 + 1e-5
        assert column.points[:, 2].min() >= 0
        assert column.points[:, 2].max() <= 3
        assert 0 <= column.location.min() <= column.location.max() <= 1
        # Height above the floor, place in the room, and labels tell the same story.
        room = Rooms().cloud(0 if columns.ids[index].startswith("small") else 1)
        low, high = room.points.min(0), room.points.max(0)
        back = column.location * (high - low) + low
        assert np.allclose(back[:, 2] - low[2], column.points[:, 2], atol=1e-5)
        assert np.array_equal(column.point_labels, back[:, 2] > 3)


def test_rooms_are_drawn_in_proportion_to_their_points() -> None:
    columns = RoomBlocks([Rooms()], num_points=10)
    small = sum(name.startswith("small") for name in columns.ids)
    assert small / len(columns) == pytest.approx(0.25, abs=0.01)
    assert len(RoomBlocks([Rooms()], num_points=10, rate=0.5)) == pytest.approx(
        len(columns) / 2, abs=1
    )


def test_columns_follow_their_seed() -> None:
    columns = RoomBlocks([Rooms()], num_points=64, min_points=10)
    assert np.array_equal(columns.sample_cloud(0, 1).points, columns.sample_cloud(0, 1).points)
    assert not np.array_equal(columns.sample_cloud(0, 1).points, columns.sample_cloud(0, 2).points)


def test_a_room_without_a_dense_place_gives_its_densest() -> None:
    columns = RoomBlocks([Rooms()], num_points=4096, min_points=10**6)
    for seed in range(5):
        column = columns.sample_cloud(0, seed)
        assert column.points.shape == (4096, 3)
        assert np.abs(column.points[:, :2]).max() <= 0.5 + 1e-5


def test_rooms_that_cannot_be_read_are_left_out_on_request() -> None:
    class Half(Rooms):
        def cloud(self, index: int) -> Cloud:
            if index == 0:
                raise ValueError("small: is empty")
            return super().cloud(index)

    with pytest.raises(ValueError, match="small: is empty"):
        RoomBlocks([Half()])
    columns = RoomBlocks([Half()], skip_unreadable=True)
    assert columns.skipped == ["small: is empty"]
    assert all(name.startswith("large") for name in columns.ids)


@pytest.mark.parametrize("extent", [(3.0, 2.0), (0.4, 0.3), (1.0, 5.05), (7.3, 0.9)])
def test_windows_cover_every_point_and_stay_inside_their_bounds(
    extent: tuple[float, float],
) -> None:
    points = RNG.uniform((-3, 2, 0), (-3 + extent[0], 2 + extent[1], 3), (4000, 3)).astype(
        np.float32
    )
    seen = np.zeros(len(points), dtype=int)
    for rows in iter_windows(points, width=1.0, stride=0.5):
        assert len(set(rows)) == len(rows)
        seen[rows] += 1
        assert np.ptp(points[rows, :2], axis=0).max() <= 1.5 + 1e-5
    assert seen.min() >= 1


def test_overlapping_windows_see_inner_points_several_times() -> None:
    points = RNG.uniform((0, 0, 0), (4, 4, 3), (4000, 3)).astype(np.float32)
    seen = np.zeros(len(points), dtype=int)
    for rows in iter_windows(points, width=1.0, stride=0.5):
        seen[rows] += 1
    inner = (np.abs(points[:, :2] - 2) < 1).all(1)
    assert np.median(seen[inner]) == 4
    with pytest.raises(ValueError, match=r"stride must lie in \(0, width 1.0\], got 2.0"):
        next(iter_windows(points, width=1.0, stride=2.0))


def test_batches_of_a_window_hold_each_of_its_points() -> None:
    rows = np.arange(100, 350)
    batches = [*iter_window_batches(rows, 64, seed=0)]
    assert [len(batch) for batch in batches] == [64] * 4
    assert set(np.concatenate(batches)) == set(rows)
    assert not np.array_equal(batches[0], next(iter_window_batches(rows, 64, seed=1)))
    assert [len(b) for b in iter_window_batches(np.arange(3), 64, seed=0)] == [64]
