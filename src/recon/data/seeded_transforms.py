"""Transform the clouds of a batch with a random generator for each of them.

The result for a cloud then depends on its own seed alone, not on the batch that it is in.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from recon.data.batch import Clouds, concat_clouds, split_clouds
from recon.data.transforms import Compose


class RandomStream(IntEnum):
    """Uses of random numbers in validation and tests; each has its own numbers."""

    TRANSFORM = 0
    """The test transform of the data."""
    VIEW = 1
    """The view of a task."""
    VOTE = 2
    """The first round of votes; later rounds have the numbers after it."""


def seed_generators(
    seeds: Int[Tensor, " b"], device: torch.device | str, stream: int
) -> list[Generator]:
    """Return a generator for each seed; generators of other streams draw other numbers."""
    # Generators of the CPU use 32 bits of a seed, so that seed and stream are hashed.
    hashed = [np.random.SeedSequence((seed, stream)).generate_state(1) for seed in seeds.tolist()]
    return [Generator(device).manual_seed(int(state[0])) for state in hashed]


def transform_each(transform: Any, clouds: Clouds, generators: Sequence[Generator]) -> Clouds:
    """Transform clouds, each with its own generator.

    Transforms that draw no random numbers are applied to all clouds at once.
    """
    if isinstance(transform, Compose):
        for part in transform.transforms:
            clouds = transform_each(part, clouds, generators)
        return clouds
    if not getattr(transform, "is_random", True):
        return transform(clouds)
    return concat_clouds(
        [
            transform(cloud, generator)
            for cloud, generator in zip(split_clouds(clouds), generators, strict=True)
        ]
    )
