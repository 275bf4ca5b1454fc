"""Batches of point clouds: field names and shapes, and how samples are collated."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, cast

import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor
from torch.utils.data import default_collate


class Clouds(NamedTuple):
    """A batch of clouds: coordinates and optional fields of each point."""

    points: Float[Tensor, "b n 3"]
    normals: Float[Tensor, "b n 3"] | None = None
    colors: Float[Tensor, "b n 3"] | None = None
    """RGB in [0, 1]."""
    location: Float[Tensor, "b n 3"] | None = None
    """Position in the room, each axis in [0, 1]."""
    height: Float[Tensor, "b n 1"] | None = None
    """Height above the lowest point, in the units of the points."""
    point_labels: Int[Tensor, "b n"] | None = None
    """Class of each point."""
    file_rows: Int[Tensor, "b n"] | None = None
    """Row of each point in its file, while a test transform selects points."""


class Batch(TypedDict, total=False):
    """Samples of one step: always `points`, `id` and `seed`, other keys on request."""

    points: Float[Tensor, "b n 3"]
    """Coordinates after the transforms, in their units."""
    normals: Float[Tensor, "b n 3"]
    colors: Float[Tensor, "b n 3"]
    """RGB in [0, 1]."""
    location: Float[Tensor, "b n 3"]
    """Position in the room, each axis in [0, 1]."""
    height: Float[Tensor, "b n 1"]
    point_labels: Int[Tensor, "b n"]
    """Class of each point."""
    up: list[str]
    """Up axis of the stored coordinates of each cloud, before they are aligned."""
    mirrored: Bool[Tensor, " b"]
    """Whether aligning the up axis mirrors the cloud, see `PointCloudDataset.mirrored`."""
    sizes: Int[Tensor, " b"]
    """Number of points of each file, in validation and test batches with all points of the files.

    The points after them pad a cloud to the largest one: they repeat its first point, labeled -1.
    """
    whole_clouds: list[Any]
    """The clouds of such a batch without padding, see `recon.data.whole_clouds.WholeCloud`."""
    second_view: Float[Tensor, "b n 3"]
    """A second, independent augmentation of the same clouds."""
    id: list[str]
    """Sample names, unique in the data set."""
    seed: Int[Tensor, " b"]
    """Seed of all random draws of a sample: depends only on run seed, epoch and index."""
    global_seeds: Int[Tensor, " m"]
    """Seeds of the batches of all processes in distributed training."""
    image: UInt8[Tensor, "b 3 h w"]
    """One augmented RGB image of each shape."""
    text: list[str]
    """One sentence about each shape."""
    label: Int[Tensor, " b"]
    """Class of each shape, -1 for unlabeled shapes."""
    category: Int[Tensor, " b"]
    """Category of each shape: shapes of one category share their texts. This is a label."""
    notes: list[tuple[str, str]]
    """Ids of samples, and what reading their files omitted or assumed."""
    skipped: list[str]
    """Error messages of samples that could not be read (`on_error=skip`)."""


class SeededIndex(NamedTuple):
    """Index that a sampler passes to a data set: the row and the seed of its random draws."""

    row: int
    seed: int


class UnreadableSample(NamedTuple):
    """Placeholder for a sample that could not be read."""

    reason: str


def global_batch_size(batch: Batch) -> int | None:
    """Return the batch size summed over all processes, None in a single process."""
    return len(batch["global_seeds"]) if "global_seeds" in batch else None


def get_clouds(batch: Batch) -> Clouds:
    """Return the clouds of a batch and their point fields."""
    return Clouds(**cast(Any, {name: batch.get(name) for name in Clouds._fields}))


def replace_clouds(batch: Batch, clouds: Clouds) -> Batch:
    """Return a copy of the batch with its clouds replaced."""
    fields = {name: value for name, value in clouds._asdict().items() if value is not None}
    return cast(Batch, {**batch, **fields})


def split_clouds(clouds: Clouds) -> list[Clouds]:
    """Split a batch into batches of one cloud."""
    fields = {k: v.split(1) for k, v in clouds._asdict().items() if v is not None}
    return [
        Clouds(**{name: parts[row] for name, parts in fields.items()})
        for row in range(len(clouds.points))
    ]


def concat_clouds(batches: Sequence[Clouds]) -> Clouds:
    """Concatenate batches with the same fields and number of points."""
    names = [name for name, value in batches[0]._asdict().items() if value is not None]
    return Clouds(**{name: torch.cat([getattr(part, name) for part in batches]) for name in names})


def concat_channels(clouds: Clouds) -> Float[Tensor, "b n c"]:
    """Concatenate the points with the colors and location that are present."""
    channels = (clouds.points, clouds.colors, clouds.location)
    return torch.cat([channel for channel in channels if channel is not None], -1)


def pad_rows(name: str, field: Num[Tensor, "n *c"], count: int) -> Num[Tensor, "count *c"]:
    """Append copies of the first row of a field of points, for labels and file rows -1."""
    repeats = field[:1].expand(count - len(field), *field.shape[1:])
    is_index = name in ("point_labels", "file_rows")
    return torch.cat([field, repeats.new_full(repeats.shape, -1) if is_index else repeats])


def collate(samples: Sequence[dict[str, Any] | UnreadableSample]) -> Batch:
    """Collate samples into a batch and leave out unreadable ones.

    Clouds of samples with `sizes` are padded to the largest cloud. Raises ValueError if other
    clouds differ in size (names two of them) or no sample is readable.
    """
    skipped = [sample.reason for sample in samples if isinstance(sample, UnreadableSample)]
    readable = [dict(sample) for sample in samples if not isinstance(sample, UnreadableSample)]
    skipped += [reason for sample in readable for reason in sample.pop("skipped", ())]
    notes = [note for sample in readable for note in sample.pop("notes", ())]
    if not readable:
        raise ValueError(f"none of the {len(samples)} samples of a batch can be read: {skipped[0]}")
    if "sizes" in readable[0]:
        count = max(sample["sizes"] for sample in readable)
        for sample in readable:
            fields = sample.keys() & {*Clouds._fields}
            sample |= {name: pad_rows(name, sample[name], count) for name in fields}
    first = readable[0]
    for sample in readable:
        if len(sample["points"]) != len(first["points"]):
            raise ValueError(
                f"{sample['id']} has {len(sample['points'])} points and {first['id']} "
                f"{len(first['points'])}: clouds of one batch must have the same number; "
                "set data.num_points=<points> to draw that many points from each cloud"
            )
    batch: Batch = default_collate(readable)
    if notes:
        batch["notes"] = notes
    if skipped:
        batch["skipped"] = skipped
    return batch
