"""What processes that train together do to be one: gather, average, and draw as one would.

R processes with batches of B take the steps of one process with batches of R * B. Process r holds
the rows r, r + R, ... of that batch; counts may differ by one. Of one process all of this is free.
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
    """Return the rank of this process, and how many there are."""
    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


class _Gather(torch.autograd.Function):
    """Stack what all processes have, (...) -> (processes, ...); gradients are added up.

    torch.distributed.nn has it too, deprecated in favour of private functions.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """Gather the rows of all processes, with gradients, in the order one process has them.

    Shapes: rows (B, ...) -> (sum of all B, ...). Every process must call it. Where processes
    average their gradients, a loss of gathered rows has the gradients of one process.
    """
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(ranks)]
    dist.all_gather(counts, torch.full_like(counts[0], len(rows)))
    sizes = torch.cat(counts).tolist()
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])])
    turns = _Gather.apply(padded).transpose(0, 1).flatten(0, 1)
    there = torch.arange(max(sizes))[:, None] < torch.tensor(sizes)
    return turns[there.flatten().to(rows.device)]


def all_reduce_with_grad(tensor: Tensor) -> Tensor:
    """Add up what all processes have, with gradients. Every process must call it."""
    return tensor if rank_and_world_size()[1] == 1 else _Gather.apply(tensor).sum(0)


def rescale_local_mean(mean: Float[Tensor, ""], count: Tensor | int) -> Float[Tensor, ""]:
    """Weigh the mean over `count` rows of this process: averaged over processes, it is that of all.

    A mean over nothing, NaN, counts nothing. Every process must call it.
    """
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return mean
    own = torch.as_tensor(count, device=mean.device, dtype=mean.dtype)
    total = own.clone()
    dist.all_reduce(total)
    return mean.where(own > 0, torch.zeros_like(mean)) * (own * ranks / total)


def _shape_of(args: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else tuple(args)


class _Turns(TorchFunctionMode):
    """Draw for the `total` rows of all processes, and keep those of this one.

    What does not start with as many rows as this process has is drawn as ever.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total
        self.rank, self.ranks = rank_and_world_size()
        self.own = len(range(self.rank, total, self.ranks))
        self.draws: dict[Any, Callable[..., Tensor | None]] = {
            torch.rand: self._of_shape,
            torch.randn: self._of_shape,
            torch.randint: self._integers,
            torch.rand_like: self._like,
            Tensor.bernoulli_: self._in_place,
            F.dropout: self._dropout,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        draw = self.draws.get(func)
        drawn = draw(func, args, kwargs or {}) if draw else None
        return func(*args, **(kwargs or {})) if drawn is None else drawn

    def _mine(self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Any:
        if not shape or shape[0] != self.own:
            return None
        return draw((self.total, *shape[1:]))[self.rank :: self.ranks]

    def _of_shape(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        return self._mine(_shape_of(args), lambda shape: func(shape, **kwargs))

    def _integers(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        *bounds, shape = args
        return self._mine(tuple(shape), lambda whole: func(*bounds, whole, **kwargs))

    def _like(self, func: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> Tensor | None:
        return self._mine(args[0].shape, lambda shape: func(args[0].new_empty(shape), **kwargs))

    def _in_place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        own, *chances = args
        draw = self._mine(own.shape, lambda shape: func(own.new_empty(shape), *chances, **kwargs))
        return None if draw is None else own.copy_(draw)

    def _dropout(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        x, *settings = args
        kept = self._mine(x.shape, lambda shape: func(x.new_ones(shape), *settings, **kwargs))
        return None if kept is None else x * kept


@contextmanager
def synced_rng(global_batch_size: int | None) -> Iterator[None]:
    """Draw what one process would draw for the `total` rows of all; None draws as ever.

    It holds for torch.rand, randn, randint, rand_like, bernoulli_ and dropout whose first axis are
    the rows of this process. All processes must have the same seed.
    """
    if global_batch_size is None or rank_and_world_size()[1] == 1:
        yield
        return
    with _Turns(global_batch_size):
        yield
