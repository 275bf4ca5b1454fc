"""What a data set of clouds knows, and how one sample of it is drawn."""

import io
import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from recon.data.batch import SeededIndex, UnreadableSample

POINT_KEYS = frozenset({"normals", "colors", "location", "point_labels"})


class Cloud(NamedTuple):
    """One cloud as it lies on disk, and what its points carry where the data set has it."""

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"] | None = None
    colors: Num[np.ndarray, "n 3"] | None = None
    """RGB, bytes in [0, 255] or fractions in [0, 1]."""
    location: Float[np.ndarray, "n 3"] | None = None
    """Place in the room, each axis in [0, 1]."""
    point_labels: Int[np.ndarray, " n"] | None = None
    """Class of each point."""
    origin: tuple[float, float, float] | None = None
    """What was subtracted from the file's coordinates, where float32 could not hold them."""

    def take(self, rows: Num[np.ndarray, " m"] | slice) -> "Cloud":
        """Return some of the points with what they carry."""
        carried = {k: v for k, v in self._asdict().items() if v is not None and k != "origin"}
        return Cloud(**cast(Any, {k: v[rows] for k, v in carried.items()}), origin=self.origin)


class PointCloudDataset(ABC):
    """Clouds and what belongs to them, each read when it is asked for."""

    ids: Sequence[str]
    """Unique names, in the order of the data set."""
    classes: Sequence[str] = ()
    """Names of the classes, where shapes have labels; zero-shot asks a text teacher for them."""
    labels: Int[np.ndarray, " n"] = np.empty(0, dtype=np.int64)
    """Class of each shape, -1 where it has none; empty where the data set has none at all."""
    families: Int[np.ndarray, " n"] = np.empty(0, dtype=np.int64)
    """Near-duplicates share a number; empty where the data set does not tell."""
    point_classes: Sequence[str] = ()
    """Names of the classes of points, where points have labels."""
    parts: Mapping[str, Sequence[int]] = {}
    """Which classes of points each class of shapes may have, by its name."""
    up: str = "y"
    """The axis that points upwards."""
    mirrored: bool = False
    """The literature turns this set upright by swapping two axes, which mirrors it."""
    in_memory: bool = False
    """All clouds were read when the data set was opened."""
    shard_size: int = 256
    """Clouds of one file of the prepared layout."""

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def cloud(self, index: int) -> Cloud:
        """Return one cloud as it lies on disk; raise ValueError that names a bad file."""

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        """Return what a step sees of one entry: the cloud, unless parts of it are drawn."""
        return self.cloud(index)

    def points(self, index: int) -> Float[np.ndarray, "n 3"]:
        """Return the coordinates of one cloud, (N, 3) float32."""
        return self.cloud(index).points

    def image(self, index: int) -> Image.Image:
        """Return a picture of one shape; raise ValueError where the data set has none."""
        raise ValueError(f"{type(self).__name__} has no image of {self.ids[index]}")

    def image_bytes(self, index: int) -> bytes | None:
        """Return the picture's file, None where the data set has none."""
        if type(self).image is PointCloudDataset.image:
            return None
        file = io.BytesIO()
        self.image(index).save(file, "PNG")
        return file.getvalue()

    def texts(self, index: int) -> Sequence[str]:
        """Return sentences about one shape; raise ValueError where the data set has none."""
        raise ValueError(f"{type(self).__name__} has no text about {self.ids[index]}")

    def category(self, index: int) -> int:
        """Return the number of one shape's category text, a label; raise ValueError likewise."""
        raise ValueError(f"{type(self).__name__} has no category of {self.ids[index]}")

    def file_paths(self, index: int) -> Sequence[Path]:
        """Return the files that an entry is read from; preparing starts anew where they changed."""
        return ()

    def file_warnings(self) -> list[str]:
        """Return a line for each thing odd about the files that reading clouds does not show."""
        return []


class DatasetView(PointCloudDataset):
    """Entries of other data sets in an order of its own: (data set, index in it) for each.

    `relabel` maps labels to those of this view, whose `classes` are given with it.
    """

    def __init__(
        self,
        datasets: Sequence[PointCloudDataset],
        indices: Sequence[tuple[int, int]],
        *,
        label_map: Mapping[int, int] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        first = datasets[0]
        self.members, self.rows = datasets, indices
        self.ids = [datasets[member].ids[index] for member, index in indices]
        self.classes = first.classes if classes is None else classes
        self.point_classes, self.parts = first.point_classes, first.parts
        self.up, self.mirrored = first.up, first.mirrored
        if all(len(member.families) for member in datasets):
            families = [int(datasets[member].families[index]) for member, index in indices]
            self.families = np.array(families, dtype=np.int64)
        self.in_memory = all(member.in_memory for member in datasets)
        if all(len(member.labels) for member in datasets):
            labels = [int(datasets[member].labels[index]) for member, index in indices]
            known = labels if label_map is None else [label_map[label] for label in labels]
            self.labels = np.array(known, dtype=np.int64)

    def cloud(self, index: int) -> Cloud:
        member, row = self.rows[index]
        return self.members[member].cloud(row)

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        member, row = self.rows[index]
        return self.members[member].sample_cloud(row, seed)

    def image(self, index: int) -> Image.Image:
        member, row = self.rows[index]
        return self.members[member].image(row)

    def image_bytes(self, index: int) -> bytes | None:
        member, row = self.rows[index]
        return self.members[member].image_bytes(row)

    def texts(self, index: int) -> Sequence[str]:
        member, row = self.rows[index]
        return self.members[member].texts(row)

    def category(self, index: int) -> int:
        member, row = self.rows[index]
        return self.members[member].category(row)


def concat_datasets(datasets: Sequence[PointCloudDataset]) -> PointCloudDataset:
    """Put data sets one after the other."""
    if len(datasets) == 1:
        return datasets[0]
    return DatasetView(
        datasets, [(m, row) for m, data in enumerate(datasets) for row in range(len(data))]
    )


def image_view_seed(name: str, view: int) -> int:
    """Return the seed of the `view`-th fixed augmentation of a named shape's picture."""
    return zlib.crc32(f"{name}#{view}".encode())


def resample_cloud(cloud: Cloud, num_points: int, seed: int) -> Cloud:
    """Draw `size` points at random; smaller clouds keep all theirs and repeat some."""
    count = len(cloud.points)
    if count == num_points:
        return cloud
    rng = np.random.default_rng(seed)
    if count > num_points:
        return cloud.take(rng.choice(count, num_points, replace=False, shuffle=False))
    return cloud.take(
        np.concatenate([np.arange(count), rng.integers(0, count, num_points - count)])
    )


class SampleDataset(Dataset[dict[str, Any] | UnreadableSample]):
    """Draws of a data set: its clouds, and of the rest what `keys` ask for.

    All randomness comes from a draw's seed: the `size` points of a cloud (None: all of them), the
    sentence among those about the shape, and the augmentation of its picture, one of
    `image_views` fixed ones where that is a number.

    What cannot be read raises ValueError; with `skip` it gives `Unreadable`, or with `refill` the
    next entry that can be read, which says in `skipped` what it stands for.
    """

    def __init__(
        self,
        dataset: PointCloudDataset,
        *,
        keys: Collection[str] = (),
        augment_image: Callable[[Image.Image, int], Tensor] | None = None,
        image_views: int | None = None,
        num_points: int | None = None,
        skip_unreadable: bool = False,
        replace_unreadable: bool = False,
    ) -> None:
        self.dataset, self.keys = dataset, frozenset(keys)
        self.augment_image, self.image_views = augment_image, image_views
        self.num_points, self.skip_unreadable, self.replace_unreadable = (
            num_points,
            skip_unreadable,
            replace_unreadable,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: SeededIndex) -> dict[str, Any] | UnreadableSample:
        if not self.skip_unreadable:
            return self._sample(*draw)
        skipped = []
        for step in range(len(self.dataset) if self.replace_unreadable else 1):
            try:
                sample = self._sample((draw.row + step) % len(self.dataset), draw.seed)
            except (ValueError, OSError) as error:
                skipped.append(str(error))
            else:
                return sample | {"skipped": skipped}
        return UnreadableSample(skipped[0])

    def _sample(self, index: int, seed: int) -> dict[str, Any]:
        cloud = self.dataset.sample_cloud(index, seed)
        if self.num_points is not None:
            cloud = resample_cloud(cloud, self.num_points, seed)
        sample = {"id": self.dataset.ids[index], "seed": seed, **self._carried(cloud, index)}
        if "text" in self.keys:
            sample["text"] = random.Random(seed).choice(self.dataset.texts(index))
        if "category" in self.keys:
            sample["category"] = self.dataset.category(index)
        if "label" in self.keys:
            sample["label"] = self._label(index)
        if "image" in self.keys:
            sample["image"] = self._image(index, seed)
        return sample

    def _carried(self, cloud: Cloud, index: int) -> dict[str, Tensor]:
        fields = {"points": torch.from_numpy(cloud.points)}
        for name in sorted(self.keys & POINT_KEYS):
            if (field := getattr(cloud, name)) is None:
                raise ValueError(f"{self.dataset.ids[index]} has no {name.replace('_', ' ')}")
            if name == "colors" and field.dtype == np.uint8:  # beside others of fractions
                field = field / np.float32(255)
            fields[name] = torch.from_numpy(field)
        return fields

    def _label(self, index: int) -> int:
        if not len(self.dataset.labels):
            raise ValueError(f"{type(self.dataset).__name__} has no labels")
        if (label := int(self.dataset.labels[index])) < 0:
            raise ValueError(
                f"{self.dataset.ids[index]} has no class: leave it out, or name its class"
            )
        return label

    def _image(self, index: int, seed: int) -> Tensor:
        if self.augment_image is None:
            raise ValueError("live image teachers need `augment_image`")
        if self.image_views is not None:
            seed = image_view_seed(self.dataset.ids[index], seed % self.image_views)
        return self.augment_image(self.dataset.image(index), seed)
