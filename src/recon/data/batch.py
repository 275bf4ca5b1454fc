"""What travels from data to tasks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import default_collate


class Batch(TypedDict, total=False):
    """Samples of one step. `points`, `id` and `seed` are always there, the rest on request."""

    points: Float[Tensor, "b n 3"]
    """Coordinates, in the units the transforms leave them in."""
    second: Float[Tensor, "b n 3"]
    """The same clouds, augmented once more."""
    id: list[str]
    """Names, unique in the data set."""
    seed: Int[Tensor, " b"]
    """Source of all a sample's randomness: a function of run seed, epoch and index alone."""
    image: UInt8[Tensor, "b 3 h w"]
    """One augmented RGB picture of each shape."""
    text: list[str]
    """One sentence about each shape."""
    category: Int[Tensor, " b"]
    """Which clouds share a category's text. This is a label."""


class Draw(NamedTuple):
    """What a sampler asks of a data set: which sample, and the seed of its randomness."""

    row: int
    seed: int


def collate(samples: Sequence[dict[str, Any]]) -> Batch:
    """Stack samples; raise ValueError that names a cloud of another size than the first."""
    first = samples[0]
    for sample in samples:
        if len(sample["points"]) != len(first["points"]):
            raise ValueError(
                f"{sample['id']} has {len(sample['points'])} points and {first['id']} "
                f"{len(first['points'])}: clouds of one data set must have the same number"
            )
    return default_collate(list(samples))
