"""Gather the test results of all processes."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recon.ops.distributed import rank_and_world_size

T = TypeVar("T")


def gather_objects(local: T) -> list[T]:
    """Return the object of each process in rank order; one object if there is one process."""
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return [local]
    gathered: list[Any] = [None] * ranks
    dist.all_gather_object(gathered, local)
    return gathered


def gather_in_sample_order(local: Sequence[T]) -> list[T]:
    """Merge one entry per sample from all processes, in the order of a single-process test."""
    # Wrapped in tuples, because an entry may be None.
    rounds = zip_longest(*([(entry,) for entry in part] for part in gather_objects(list(local))))
    return [wrapped[0] for entries in rounds for wrapped in entries if wrapped is not None]


def gather_rows_in_sample_order(batches: Sequence[Tensor]) -> list[Tensor]:
    """Merge batches of all processes into one, in sample order; an empty list if there are none."""
    rows = gather_in_sample_order([row for batch in batches for row in batch])
    return [torch.stack(rows)] if rows else []
