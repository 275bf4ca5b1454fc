"""What processes that test together have found."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recon.ops.distributed import rank_and_world_size

Found = TypeVar("Found")


def gather_objects(local: Found) -> list[Found]:
    """Return what each process found, in the order of their ranks; of one process, its own."""
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return [local]
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, local)
    return everyone


def gather_in_sample_order(local: Sequence[Found]) -> list[Found]:
    """Return what all processes found, an entry a sample, in the order one process finds it."""
    # Wrapped, so that an entry may be None.
    turns = zip_longest(*([(one,) for one in part] for part in gather_objects(list(local))))
    return [one[0] for turn in turns for one in turn if one is not None]


def gather_rows_in_sample_order(batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the rows of all processes' batches, likewise, as one batch; none of no batch."""
    rows = gather_in_sample_order([row for batch in batches for row in batch])
    return [torch.stack(rows)] if rows else []
