"""Samplers: order, seeds, distribution over ranks and resuming."""

import pytest
from torch.utils.data import DistributedSampler

from recon.data.sampler import OrderedDistributedSampler, ResumableDistributedSampler


def draw_indices(**options: int) -> list[tuple[int, int]]:
    return [tuple(index) for index in ResumableDistributedSampler(20, **options)]


def test_epochs_have_each_sample_once_with_new_order_and_seeds() -> None:
    first, second = draw_indices(epoch=0), draw_indices(epoch=1)
    assert sorted(row for row, _ in first) == sorted(row for row, _ in second) == list(range(20))
    assert [row for row, _ in first] != [row for row, _ in second]
    assert not {seed for _, seed in first} & {seed for _, seed in second}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert (
        draw_indices(seed=3, epoch=2)
        == draw_indices(seed=3, epoch=2)
        != draw_indices(seed=4, epoch=2)
    )
    sampler = ResumableDistributedSampler(20, seed=3)
    list(sampler)
    sampler.set_epoch(2)
    assert [tuple(index) for index in sampler] == draw_indices(seed=3, epoch=2)


def test_consumed_samples_are_skipped_in_the_resumed_epoch_only() -> None:
    sampler = ResumableDistributedSampler(20, epoch=5, consumed_samples=8)
    assert [tuple(index) for index in sampler] == draw_indices(epoch=5)[8:]
    sampler.set_epoch(6)
    assert [tuple(index) for index in sampler] == draw_indices(epoch=6)


def test_ranks_take_turns_in_one_order_with_the_same_seeds() -> None:
    parts = [draw_indices(rank=rank, num_replicas=2) for rank in (0, 1)]
    assert [index for pair in zip(*parts, strict=True) for index in pair] == draw_indices()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ordered_ranks_partition_the_samples(world_size: int) -> None:
    samplers = [
        OrderedDistributedSampler(10, seed=3, rank=rank, num_replicas=world_size)
        for rank in range(world_size)
    ]
    indices = [index for sampler in samplers for index in sampler]
    assert sorted(index.row for index in indices) == list(range(10))
    assert sum(map(len, samplers)) == 10
    assert set(indices) == set(OrderedDistributedSampler(10, seed=3))
    # Lightning does not wrap a DistributedSampler in another one.
    assert all(isinstance(sampler, DistributedSampler) for sampler in samplers)


@pytest.mark.parametrize("epoch_size", [20, 19, 16])
def test_ranks_partition_the_epoch_without_repeats(epoch_size: int) -> None:
    samplers = [
        ResumableDistributedSampler(20, rank=rank, num_replicas=3, epoch_size=epoch_size)
        for rank in range(3)
    ]
    rows = [index.row for sampler in samplers for index in sampler]
    assert len(rows) == len(set(rows)) == epoch_size == sum(map(len, samplers))
    assert sorted(rows) == sorted(
        index.row for index in ResumableDistributedSampler(20, epoch_size=epoch_size)
    )
