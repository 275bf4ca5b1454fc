"""Gather rows, average losses and draw random numbers in several processes as in a single one.

R processes with batches of B take the same steps as one process with batches of R * B. Process r
has the rows r, r + R, ... of the global batch; the numbers of rows may differ by one. In a single
process nothing is communicated.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


class _AllGather(torch.autograd.Function):
    """Stack the tensors of all processes, (...) -> (processes, ...); gradients are summed.

    torch.distributed.nn has this function too, but deprecated in favor of private functions.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        tensors = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(tensors, local.contiguous())
        return torch.stack(tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """Gather the rows of all processes in the order of the global batch, with gradients.

    Shapes: rows (B, ...) -> (sum of all B, ...). Every process must call it. If processes average
    their gradients, a loss of the gathered rows has the gradients of a single process.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size)]
    dist.all_gather(counts, torch.full_like(counts[0], len(rows)))
    sizes = torch.cat(counts).tolist()
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])])
    interleaved = _AllGather.apply(padded).transpose(0, 1).flatten(0, 1)
    valid = torch.arange(max(sizes))[:, None] < torch.tensor(sizes)
    return interleaved[valid.flatten().to(rows.device)]


def all_reduce_with_grad(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, with gradients. Every process must call it."""
    return tensor if rank_and_world_size()[1] == 1 else _AllGather.apply(tensor).sum(0)


def rescale_local_mean(mean: Float[Tensor, ""], count: Tensor | int) -> Float[Tensor, ""]:
    """Rescale a mean of `count` local rows, so that its average over processes is the global mean.

    A mean over no rows (NaN) has weight 0. Every process must call it.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return mean
    local = torch.as_tensor(count, device=mean.device, dtype=mean.dtype)
    total = local.clone()
    dist.all_reduce(total)
    return mean.where(local > 0, torch.zeros_like(mean)) * (local * world_size / total)


def _parse_shape(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape from `(shape,)` or from separate sizes."""
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else tuple(args)


class _SyncedRandomMode(TorchFunctionMode):
    """Draw random numbers for the rows of the global batch, and return the rows of this process.

    A tensor whose first axis is not the local batch is drawn as usual.
    """

    def __init__(self, global_batch_size: int) -> None:
        super().__init__()
        self.global_batch_size = global_batch_size
        self.rank, self.world_size = rank_and_world_size()
        self.local_batch_size = len(range(self.rank, global_batch_size, self.world_size))
        self.handlers: dict[Any, Callable[..., Tensor | None]] = {
            torch.rand: self._draw_shape,
            torch.randn: self._draw_shape,
            torch.randint: self._draw_integers,
            torch.rand_like: self._draw_like,
            Tensor.bernoulli_: self._fill_in_place,
            F.dropout: self._apply_dropout,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        handler = self.handlers.get(func)
        result = handler(func, args, kwargs or {}) if handler else None
        return func(*args, **(kwargs or {})) if result is None else result

    def _draw_local_rows(
        self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]
    ) -> Any:
        if not shape or shape[0] != self.local_batch_size:
            return None
        return draw((self.global_batch_size, *shape[1:]))[self.rank :: self.world_size]

    def _draw_shape(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        return self._draw_local_rows(_parse_shape(args), lambda shape: func(shape, **kwargs))

    def _draw_integers(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        *bounds, size = args
        return self._draw_local_rows(tuple(size), lambda shape: func(*bounds, shape, **kwargs))

    def _draw_like(self, func: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> Tensor | None:
        return self._draw_local_rows(
            args[0].shape, lambda shape: func(args[0].new_empty(shape), **kwargs)
        )

    def _fill_in_place(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        target, *probability = args
        draw = self._draw_local_rows(
            target.shape, lambda shape: func(target.new_empty(shape), *probability, **kwargs)
        )
        return None if draw is None else target.copy_(draw)

    def _apply_dropout(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        x, *options = args
        mask = self._draw_local_rows(
            x.shape, lambda shape: func(x.new_ones(shape), *options, **kwargs)
        )
        return None if mask is None else x * mask


@contextmanager
def synced_rng(global_batch_size: int | None) -> Iterator[None]:
    """Draw the random numbers that one process would draw for the global batch.

    This applies to torch.rand, randn, randint, rand_like, bernoulli_ and dropout if the first axis
    is the local batch. All processes must have the same seed. With None, numbers are drawn as
    usual.
    """
    if global_batch_size is None or rank_and_world_size()[1] == 1:
        yield
        return
    with _SyncedRandomMode(global_batch_size):
        yield
