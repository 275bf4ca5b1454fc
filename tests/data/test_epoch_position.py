"""Training continues at the next sample of an epoch, whatever the batches are now."""

import pytest
import torch

from recon.data.epoch_position import (
    EpochLayout,
    EpochPosition,
    find_resumed_epoch,
    rewrite_loops,
)
from recon.data.sampler import ResumableDistributedSampler


def draw(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def rows_of(layout: EpochLayout, **options: int) -> list[int]:
    """Return the rows of an epoch of all ranks, batch after batch."""
    samplers = [
        ResumableDistributedSampler(
            layout.num_samples,
            rank=rank,
            num_replicas=layout.world_size,
            epoch=2,
            epoch_size=layout.epoch_size,
            **options,
        )
        for rank in range(layout.world_size)
    ]
    by_rank = [[index.row for index in sampler] for sampler in samplers]
    longest = max(map(len, by_rank))
    return [rows[turn] for turn in range(longest) for rows in by_rank if turn < len(rows)]


@pytest.mark.parametrize("seed", range(60))
def test_samples_left_are_used_once_in_order_with_any_batch_size_and_processes(seed: int) -> None:
    torch.manual_seed(seed)
    drop_last = bool(draw(0, 1))
    old = EpochLayout(draw(60, 200), draw(2, 9), draw(1, 3), drop_last)
    new = EpochLayout(old.num_samples, draw(2, 9), draw(1, 3), drop_last, None, draw(1, 4))
    done = draw(1, old.num_batches - 1) * old.global_batch
    position = EpochPosition(2, done, old.epoch_size, False, None, "")
    resumed = find_resumed_epoch(position, new)
    epoch = rows_of(old)
    if resumed.epoch == 3:
        assert len(epoch) - done < max(2 * new.world_size, new.global_batch)
        return
    assert (resumed.epoch, resumed.start) == (2, done)
    rest = rows_of(
        new,
        consumed_samples=resumed.start,
        resumed_stop=resumed.stop,
        counted_samples=resumed.skipped_batches * new.batch_size,
    )
    assert epoch[:done] + rest == epoch[: done + len(rest)]
    assert len(epoch) - done - len(rest) < 2 * new.world_size  # too few for BatchNorm
    assert resumed.skipped_batches % new.accumulate == 0
    batches = -(-len(rest) // new.global_batch)
    assert resumed.num_batches == resumed.skipped_batches + batches


def test_the_position_after_each_batch_continues_with_the_next_one() -> None:
    layout = EpochLayout(100, 8, 2, False, None, 3)
    for batches in range(3, 7, 3):
        position = EpochPosition(4, batches * 16, 100, False, None, "")
        resumed = find_resumed_epoch(position, layout)
        assert resumed == (4, batches * 16, 100, batches, 7, None, True)


@pytest.mark.parametrize("limit", [3, 0.5, None])
def test_an_epoch_that_ended_by_its_limit_is_complete_until_the_limit_changes(
    limit: int | float | None,
) -> None:
    layout = EpochLayout(48, 8, 1, False, limit)
    done = layout.num_batches * 8
    position = EpochPosition(1, done, 48, True, limit, "")
    assert find_resumed_epoch(position, layout)[:3] == (2, 0, done)
    longer = find_resumed_epoch(position, layout._replace(batch_limit=5))
    assert longer[:3] == ((1, done, 40) if limit else (2, 0, 40))
    assert longer.batch_limit == 5


def test_a_limit_counts_the_batches_of_the_epoch_from_its_start() -> None:
    position = EpochPosition(0, 16, 64, False, None, "")
    resumed = find_resumed_epoch(position, EpochLayout(64, 8, 1, False, 5))
    assert (resumed.start, resumed.stop, resumed.skipped_batches) == (16, 40, 2)
    assert resumed.num_batches == 5
    finished = find_resumed_epoch(position, EpochLayout(64, 8, 1, False, 2))
    assert finished[:3] == (1, 0, 16)


def test_loops_continue_within_or_before_an_epoch() -> None:
    layout = EpochLayout(64, 8, 1, False)
    for position, begun, done in (
        (EpochPosition(3, 24, 64, False, None, ""), 4, 3),
        (EpochPosition(3, 64, 64, True, None, ""), 4, 4),
    ):
        loops: dict[str, dict[str, dict[str, dict[str, int]]]] = {"fit_loop": {}}
        rewrite_loops(loops, find_resumed_epoch(position, layout), 27, 27)
        epochs = loops["fit_loop"]["epoch_progress"]["current"]
        assert (epochs["started"], epochs["completed"]) == (begun, done)
        batches = loops["fit_loop"]["epoch_loop.batch_progress"]
        assert batches["current"]["ready"] == (3 if done == 3 else 0)
        assert batches["total"]["ready"] == 27
