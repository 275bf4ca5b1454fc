"""Gathering, averaging and random numbers in two forked processes equal those of one process."""

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
CATEGORIES = torch.tensor([0, 1, 0, 2, 1, 0, 2])


def _run_rank(rank: int, address: Path, job: Callable[[], Any], results: Any) -> None:
    dist.init_process_group("gloo", f"file://{address}", rank=rank, world_size=2)
    results.put((rank, job()))
    dist.barrier()
    dist.destroy_process_group()


def run_two_processes(job: Callable[[], Any], folder: Path) -> list[Any]:
    """Run a function in two processes; return its results (plain numbers), ordered by rank."""
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    workers = [fork.Process(target=_run_rank, args=(r, folder / "at", job, queue)) for r in (0, 1)]
    for worker in workers:
        worker.start()
    results = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    return [results[rank] for rank in (0, 1)]


def local_rows(rows: Tensor) -> Tensor:
    rank, world_size = rank_and_world_size()
    return rows[rank::world_size]


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "smooth_l1": lambda x, y, _: SmoothL1()(x, y),
    "cosine": lambda x, y, _: Cosine()(x, y),
    "infonce": lambda x, y, _: InfoNCE()(x, y),
    "siglip": lambda x, y, _: SigLIP().double()(x, y),
    "view": lambda x, y, _: NTXentLoss()(x, y),
    "category": lambda x, _, category: CategoryContrast()(x, category),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gathered_losses_match_one_process(name: str, tmp_path: Path) -> None:
    def run() -> tuple[float, list[float]]:
        weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
        features = (all_gather_with_grad(local_rows(rows) @ weight) for rows in (ROWS, OTHER))
        loss = LOSSES[name](*features, all_gather_with_grad(local_rows(CATEGORIES)))
        (gradient,) = torch.autograd.grad(loss, weight)
        dist.all_reduce(gradient)  # processes average their gradients
        return loss.item(), (gradient / 2).flatten().tolist()

    weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name](ROWS @ weight, OTHER @ weight, CATEGORIES)
    (gradient,) = torch.autograd.grad(loss, weight)
    for value, local_gradient in run_two_processes(run, tmp_path):
        assert value == pytest.approx(loss.item(), abs=1e-12)
        assert_close(torch.tensor(local_gradient, dtype=torch.float64), gradient.flatten())


def test_gathered_rows_keep_the_order_of_one_process(tmp_path: Path) -> None:
    first, second = run_two_processes(
        lambda: all_gather_with_grad(local_rows(CATEGORIES)).tolist(), tmp_path
    )
    assert first == second == CATEGORIES.tolist()


def test_rescaled_means_average_to_the_global_mean(
    tmp_path: Path,
) -> None:
    def run() -> tuple[float, float]:
        rows = local_rows(ROWS)[:, 0]
        rank, _ = rank_and_world_size()
        subset = rows[: 0 if rank else None]  # the second process has none
        return (
            rescale_local_mean(rows.mean(), len(rows)).item(),
            rescale_local_mean(subset.mean(), len(subset)).item(),
        )

    means = torch.tensor(run_two_processes(run, tmp_path), dtype=torch.float64).mean(0)
    assert_close(means, torch.stack([ROWS[:, 0].mean(), ROWS[::2, 0].mean()]))


def draw_all(rows: Tensor) -> list[Any]:
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


def test_random_numbers_match_one_process(tmp_path: Path) -> None:
    def run() -> tuple[list[Any], list[float]]:
        with synced_rng(len(ROWS)):
            draws = draw_all(local_rows(ROWS))
            torch.manual_seed(5)
            return draws, torch.rand(1, 2).flatten().tolist()  # not the local batch: drawn as usual

    results = run_two_processes(run, tmp_path)
    for expected_draw, *draws in zip(
        draw_all(ROWS), *(result[0] for result in results), strict=True
    ):
        assert [expected_draw[::2], expected_draw[1::2]] == draws
    torch.manual_seed(5)
    expected = torch.rand(1, 2).flatten().tolist()
    assert [result[1] for result in results] == [expected, expected]


def test_sync_batch_norm_matches_one_process(tmp_path: Path) -> None:
    def run() -> list[list[float]]:
        norm = SyncBatchNorm1d(5, dtype=torch.float64)
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
        x = local_rows(ROWS).clone().requires_grad_()
        (norm(x) * local_rows(OTHER)).sum().backward()
        _, world_size = rank_and_world_size()
        if world_size > 1:
            for parameter in norm.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
        tensors = [x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        return [tensor.flatten().tolist() for tensor in tensors if tensor is not None]

    single, (first, second) = run(), run_two_processes(run, tmp_path)
    full_grad = torch.tensor(single[0]).view(-1, 5)
    for rank, values in enumerate((first, second)):
        assert_close(torch.tensor(values[0]).view(-1, 5), full_grad[rank::2], rtol=0, atol=1e-9)
        for a, b in zip(values[1:], single[1:], strict=True):
            assert b == pytest.approx(a, abs=1e-9)
