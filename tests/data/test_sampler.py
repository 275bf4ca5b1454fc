import pytest
from torch.utils.data import DistributedSampler

from recon.data.sampler import OrderedDistributedSampler, ResumableDistributedSampler


def draws(**settings: int) -> list[tuple[int, int]]:
    return [tuple(draw) for draw in ResumableDistributedSampler(20, **settings)]


def test_each_epoch_draws_every_sample_once_in_another_order_with_another_seed() -> None:
    first, second = draws(epoch=0), draws(epoch=1)
    assert sorted(row for row, _ in first) == sorted(row for row, _ in second) == list(range(20))
    assert [row for row, _ in first] != [row for row, _ in second]
    assert not {seed for _, seed in first} & {seed for _, seed in second}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert draws(seed=3, epoch=2) == draws(seed=3, epoch=2) != draws(seed=4, epoch=2)
    sampler = ResumableDistributedSampler(20, seed=3)
    list(sampler)
    sampler.set_epoch(2)
    assert [tuple(draw) for draw in sampler] == draws(seed=3, epoch=2)


def test_skipping_resumes_the_epoch_and_leaves_the_next_whole() -> None:
    sampler = ResumableDistributedSampler(20, epoch=5, consumed_samples=8)
    assert [tuple(draw) for draw in sampler] == draws(epoch=5)[8:]
    sampler.set_epoch(6)
    assert [tuple(draw) for draw in sampler] == draws(epoch=6)


def test_ranks_share_an_order_and_a_samples_seed_is_the_same_on_any() -> None:
    parts = [draws(rank=rank, num_replicas=2) for rank in (0, 1)]
    assert [draw for pair in zip(*parts, strict=True) for draw in pair] == draws()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ordered_ranks_share_out_each_sample_once(ranks: int) -> None:
    samplers = [
        OrderedDistributedSampler(10, seed=3, rank=rank, num_replicas=ranks)
        for rank in range(ranks)
    ]
    drawn = [draw for sampler in samplers for draw in sampler]
    assert sorted(draw.row for draw in drawn) == list(range(10))
    assert sum(map(len, samplers)) == 10
    assert set(drawn) == set(OrderedDistributedSampler(10, seed=3))
    # Trainers leave those alone that share out themselves.
    assert all(isinstance(sampler, DistributedSampler) for sampler in samplers)


@pytest.mark.parametrize("kept", [20, 19, 16])
def test_ranks_share_out_what_is_kept_and_repeat_nothing(kept: int) -> None:
    samplers = [
        ResumableDistributedSampler(20, rank=rank, num_replicas=3, epoch_size=kept)
        for rank in range(3)
    ]
    drawn = [draw.row for sampler in samplers for draw in sampler]
    assert len(drawn) == len(set(drawn)) == kept == sum(map(len, samplers))
    assert sorted(drawn) == sorted(
        draw.row for draw in ResumableDistributedSampler(20, epoch_size=kept)
    )


def test_seeds_of_batches_that_ranks_test_together() -> None:
    alone = [draw.seed for draw in OrderedDistributedSampler(10, seed=3)]
    shared = OrderedDistributedSampler(10, seed=3, rank=1, num_replicas=2)
    assert [shared.global_batch_seeds(number, 2) for number in range(3)] == [
        alone[:4],
        alone[4:8],
        alone[8:],
    ]
