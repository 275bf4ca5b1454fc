"""What processes that test together have found."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recon.ops.distributed import processes

Found = TypeVar("Found")


def gathered(found: Found) -> list[Found]:
    """Return what each process found, in the order of their ranks; of one process, its own."""
    _, ranks = processes()
    if ranks == 1:
        return [found]
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, found)
    return everyone


def in_order(found: Sequence[Found]) -> list[Found]:
    """Return what all processes found, an entry a sample, in the order one process finds it."""
    # Wrapped, so that an entry may be None.
    turns = zip_longest(*([(one,) for one in part] for part in gathered(list(found))))
    return [one[0] for turn in turns for one in turn if one is not None]


def rows_in_order(found: Sequence[Tensor]) -> list[Tensor]:
    """Return the rows of all processes' batches, likewise, as one batch; none of no batch."""
    rows = in_order([row for batch in found for row in batch])
    return [torch.stack(rows)] if rows else []
