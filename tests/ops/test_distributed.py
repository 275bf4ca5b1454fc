"""Two processes, forked: what they gather, average and draw is what one has."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.testing import assert_close

from recon.layers.batch_norm import SyncBatchNorm1d
from recon.losses.contrastive import CategoryContrast, NTXentLoss
from recon.losses.distillation import Cosine, InfoNCE, SigLIP, SmoothL1
from recon.ops.distributed import (
    all_gather_with_grad,
    rank_and_world_size,
    rescale_local_mean,
    synced_rng,
)

ROWS = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
KINDS = torch.tensor([0, 1, 0, 2, 1, 0, 2])


def _join(rank: int, address: Path, job: Callable[[], Any], found: Any) -> None:
    dist.init_process_group("gloo", f"file://{address}", rank=rank, world_size=2)
    found.put((rank, job()))
    dist.barrier()
    dist.destroy_process_group()


def by_two(job: Callable[[], Any], folder: Path) -> list[Any]:
    """Run a function in two processes; return what it gave, plain numbers, by rank."""
    fork = multiprocessing.get_context("fork")
    found = fork.Queue()
    workers = [fork.Process(target=_join, args=(r, folder / "at", job, found)) for r in (0, 1)]
    for worker in workers:
        worker.start()
    given = dict(found.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    return [given[rank] for rank in (0, 1)]


def mine(rows: Tensor) -> Tensor:
    rank, ranks = rank_and_world_size()
    return rows[rank::ranks]


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "smooth_l1": lambda x, y, _: SmoothL1()(x, y),
    "cosine": lambda x, y, _: Cosine()(x, y),
    "infonce": lambda x, y, _: InfoNCE()(x, y),
    "siglip": lambda x, y, _: SigLIP().double()(x, y),
    "view": lambda x, y, _: NTXentLoss()(x, y),
    "category": lambda x, _, kinds: CategoryContrast()(x, kinds),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gathered_losses_have_the_value_and_gradients_of_one_process(
    name: str, tmp_path: Path
) -> None:
    def shared() -> tuple[float, list[float]]:
        weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
        features = (all_gather_with_grad(mine(rows) @ weight) for rows in (ROWS, OTHER))
        loss = LOSSES[name](*features, all_gather_with_grad(mine(KINDS)))
        (gradient,) = torch.autograd.grad(loss, weight)
        dist.all_reduce(gradient)  # processes average their gradients
        return loss.item(), (gradient / 2).flatten().tolist()

    weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name](ROWS @ weight, OTHER @ weight, KINDS)
    (gradient,) = torch.autograd.grad(loss, weight)
    for value, own in by_two(shared, tmp_path):
        assert value == pytest.approx(loss.item(), abs=1e-12)
        assert_close(torch.tensor(own, dtype=torch.float64), gradient.flatten())


def test_gathered_rows_have_the_order_of_one_process(tmp_path: Path) -> None:
    first, second = by_two(lambda: all_gather_with_grad(mine(KINDS)).tolist(), tmp_path)
    assert first == second == KINDS.tolist()


def test_means_average_to_that_of_all_and_a_mean_over_nothing_counts_nothing(
    tmp_path: Path,
) -> None:
    def shares() -> tuple[float, float]:
        rows = mine(ROWS)[:, 0]
        rank, _ = rank_and_world_size()
        kept = rows[: 0 if rank else None]  # the second process has none
        return (
            rescale_local_mean(rows.mean(), len(rows)).item(),
            rescale_local_mean(kept.mean(), len(kept)).item(),
        )

    found = torch.tensor(by_two(shares, tmp_path), dtype=torch.float64).mean(0)
    assert_close(found, torch.stack([ROWS[:, 0].mean(), ROWS[::2, 0].mean()]))


def drawn(rows: Tensor) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(4)
    size = len(rows)
    draws = [
        torch.rand((size, 1, 2), generator=generator),
        torch.rand(size, 2),
        torch.randn(size, 4, generator=generator),
        torch.randint(9, (size, 1)),
        torch.rand_like(rows),
        rows.new_empty(size, 1).bernoulli_(0.5),
        F.dropout(torch.ones_like(rows), 0.5),
        nn.Dropout(0.5)(rows),
    ]
    return [draw.double().tolist() for draw in draws]


def test_draws_are_those_of_one_process(tmp_path: Path) -> None:
    def own() -> tuple[list[Any], list[float]]:
        with synced_rng(len(ROWS)):
            found = drawn(mine(ROWS))
            torch.manual_seed(5)
            return found, torch.rand(1, 2).flatten().tolist()  # not of rows: drawn as ever

    parts = by_two(own, tmp_path)
    for one, *two in zip(drawn(ROWS), *(part[0] for part in parts), strict=True):
        assert [one[::2], one[1::2]] == two
    torch.manual_seed(5)
    expected = torch.rand(1, 2).flatten().tolist()
    assert [part[1] for part in parts] == [expected, expected]


def test_shared_batch_norms_are_those_of_one_process(tmp_path: Path) -> None:
    def job() -> list[list[float]]:
        norm = SyncBatchNorm1d(5, dtype=torch.float64)
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
        x = mine(ROWS).clone().requires_grad_()
        (norm(x) * mine(OTHER)).sum().backward()
        _, ranks = rank_and_world_size()
        if ranks > 1:
            for parameter in norm.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
        found = [x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        return [tensor.flatten().tolist() for tensor in found if tensor is not None]

    alone, (first, second) = job(), by_two(job, tmp_path)
    whole = torch.tensor(alone[0]).view(-1, 5)
    for rank, given in enumerate((first, second)):
        assert_close(torch.tensor(given[0]).view(-1, 5), whole[rank::2], rtol=0, atol=1e-9)
        for a, b in zip(given[1:], alone[1:], strict=True):
            assert b == pytest.approx(a, abs=1e-9)
