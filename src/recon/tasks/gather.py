"""What processes that test together have found."""

from typing import TypeVar

import torch.distributed as dist

Found = TypeVar("Found")


def gathered(found: Found) -> list[Found]:
    """Return what each process found, in the order of their ranks; of one process, its own."""
    if not dist.is_available() or not dist.is_initialized():
        return [found]
    everyone: list[Found | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    return [one for one in everyone if one is not None]
