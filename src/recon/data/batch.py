"""What travels from data to tasks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, cast

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import default_collate


class Clouds(NamedTuple):
    """A batch of clouds, and what their points carry beside coordinates."""

    points: Float[Tensor, "b n 3"]
    normals: Float[Tensor, "b n 3"] | None = None
    colors: Float[Tensor, "b n 3"] | None = None
    """RGB in [0, 1]."""
    location: Float[Tensor, "b n 3"] | None = None
    """Place in the room, each axis in [0, 1]."""
    height: Float[Tensor, "b n 1"] | None = None
    """Above the lowest point, in units of the points."""
    point_labels: Int[Tensor, "b n"] | None = None
    """Class of each point."""


class Batch(TypedDict, total=False):
    """Samples of one step. `points`, `id` and `seed` are always there, the rest on request."""

    points: Float[Tensor, "b n 3"]
    """Coordinates, in the units the transforms leave them in."""
    normals: Float[Tensor, "b n 3"]
    colors: Float[Tensor, "b n 3"]
    """RGB in [0, 1]."""
    location: Float[Tensor, "b n 3"]
    """Place in the room, each axis in [0, 1]."""
    height: Float[Tensor, "b n 1"]
    point_labels: Int[Tensor, "b n"]
    """Class of each point."""
    second_view: Float[Tensor, "b n 3"]
    """The same clouds, augmented once more."""
    id: list[str]
    """Names, unique in the data set."""
    seed: Int[Tensor, " b"]
    """Source of all a sample's randomness: a function of run seed, epoch and index alone."""
    global_seeds: Int[Tensor, " m"]
    """Seeds of the batches of all processes, where several train together."""
    image: UInt8[Tensor, "b 3 h w"]
    """One augmented RGB picture of each shape."""
    text: list[str]
    """One sentence about each shape."""
    label: Int[Tensor, " b"]
    """Class of each shape, -1 where it has none."""
    category: Int[Tensor, " b"]
    """Which clouds share a category's text. This is a label."""
    skipped: list[str]
    """Why samples are missing that the step should have held (`on_error=skip`)."""


class SeededIndex(NamedTuple):
    """What a sampler asks of a data set: which sample, and the seed of its randomness."""

    row: int
    seed: int


class UnreadableSample(NamedTuple):
    """A sample that could not be read, in place of the sample."""

    reason: str


def global_batch_size(batch: Batch) -> int | None:
    """Count the rows of the batches of all processes; None where one trains alone."""
    return len(batch["global_seeds"]) if "global_seeds" in batch else None


def get_clouds(batch: Batch) -> Clouds:
    """Take the clouds of a batch."""
    return Clouds(**cast(Any, {name: batch.get(name) for name in Clouds._fields}))


def replace_clouds(batch: Batch, clouds: Clouds) -> Batch:
    """Return the batch with these clouds in place of its own."""
    carried = {name: value for name, value in clouds._asdict().items() if value is not None}
    return cast(Batch, {**batch, **carried})


def concat_channels(clouds: Clouds) -> Float[Tensor, "b n c"]:
    """Put points, colours and location side by side, as many of them as there are."""
    parts = (clouds.points, clouds.colors, clouds.location)
    return torch.cat([part for part in parts if part is not None], -1)


def collate(samples: Sequence[dict[str, Any] | UnreadableSample]) -> Batch:
    """Stack samples, leaving out unreadable ones.

    Raises ValueError that names a cloud of another size than the first, or where none is left.
    """
    skipped = [sample.reason for sample in samples if isinstance(sample, UnreadableSample)]
    read = [dict(sample) for sample in samples if not isinstance(sample, UnreadableSample)]
    skipped += [why for sample in read for why in sample.pop("skipped", ())]
    if not read:
        raise ValueError(f"none of the {len(samples)} samples of a batch can be read: {skipped[0]}")
    first = read[0]
    for sample in read:
        if len(sample["points"]) != len(first["points"]):
            raise ValueError(
                f"{sample['id']} has {len(sample['points'])} points and {first['id']} "
                f"{len(first['points'])}: clouds of one batch must have the same number; "
                "data.num_points=<points> draws as many from each"
            )
    batch: Batch = default_collate(read)
    if skipped:
        batch["skipped"] = skipped
    return batch
