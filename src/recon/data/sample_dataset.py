"""Draw training samples from a data set: points, sentence and image, seeded per sample."""

import random
import zlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from recon.data.batch import SeededIndex, UnreadableSample
from recon.data.dataset import Cloud, PointCloudDataset, resample_cloud

POINT_KEYS = frozenset({"normals", "colors", "location", "point_labels"})
"""Keys of a sample with one value or vector per point."""
HINTS = {"colors": ": set channels=3, or add colors to its files"}
"""Advice about fields that a file lacks."""


def image_view_seed(name: str, view: int) -> int:
    """Return the seed of the `view`-th fixed augmentation of the image of a shape."""
    return zlib.crc32(f"{name}#{view}".encode())


class SampleDataset(Dataset[dict[str, Any] | UnreadableSample]):
    """Draw samples of a data set: points and the fields listed in `keys`.

    The seed of a `SeededIndex` determines all random draws: the `num_points` points of a cloud
    (None uses all points), one of the sentences about the shape, and the augmentation of its
    image, or one of `image_views` fixed augmentations. `all_points` uses all points, and adds
    `sizes`, so that `collate` pads clouds. `with_orientation` adds the up axis.

    Unreadable samples raise ValueError. With `skip_unreadable` they become `UnreadableSample`.
    With `replace_unreadable` too, the next readable sample replaces them and lists their errors
    in `skipped`.
    """

    def __init__(
        self,
        dataset: PointCloudDataset,
        *,
        keys: Collection[str] = (),
        augment_image: Callable[[Image.Image, int], Tensor] | None = None,
        image_views: int | None = None,
        num_points: int | None = None,
        all_points: bool = False,
        with_orientation: bool = False,
        skip_unreadable: bool = False,
        replace_unreadable: bool = False,
    ) -> None:
        self.dataset, self.keys = dataset, frozenset(keys)
        self.augment_image, self.image_views = augment_image, image_views
        self.num_points, self.all_points = None if all_points else num_points, all_points
        self.with_orientation = with_orientation
        self.skip_unreadable, self.replace_unreadable = skip_unreadable, replace_unreadable

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: SeededIndex) -> dict[str, Any] | UnreadableSample:
        if not self.skip_unreadable:
            return self._read_sample(*draw)
        skipped = []
        for step in range(len(self.dataset) if self.replace_unreadable else 1):
            try:
                sample = self._read_sample((draw.row + step) % len(self.dataset), draw.seed)
            except (ValueError, OSError) as error:
                skipped.append(str(error))
            else:
                return sample | {"skipped": skipped}
        return UnreadableSample(skipped[0])

    def _read_sample(self, index: int, seed: int) -> dict[str, Any]:
        cloud = self.dataset.sample_cloud(index, seed)
        if self.num_points is not None:
            cloud = resample_cloud(cloud, self.num_points, seed)
        sample = {
            "id": self.dataset.ids[index],
            "seed": seed,
            **self._collect_notes(cloud, index),
            **self._select_point_fields(cloud, index),
        }
        if self.all_points:
            sample["sizes"] = len(cloud.points)
        if self.with_orientation:
            sample["up"], sample["mirrored"] = self.dataset.orientation(index)
        if "text" in self.keys:
            sample["text"] = random.Random(seed).choice(self.dataset.texts(index))
        if "category" in self.keys:
            sample["category"] = self.dataset.category(index)
        if "label" in self.keys:
            sample["label"] = self._read_label(index)
        if "image" in self.keys:
            sample["image"] = self._read_image(index, seed)
        return sample

    def _collect_notes(self, cloud: Cloud, index: int) -> dict[str, list[tuple[str, str]]]:
        """Return the notes about a sample's file under the key `notes`, if there are any."""
        name = self.dataset.ids[index]
        return {"notes": [(name, note) for note in cloud.notes]} if cloud.notes else {}

    def _select_point_fields(self, cloud: Cloud, index: int) -> dict[str, Tensor]:
        fields = {"points": torch.from_numpy(cloud.points)}
        for name in sorted(self.keys & POINT_KEYS):
            if (field := getattr(cloud, name)) is None:
                hint = HINTS.get(name, "")
                raise ValueError(f"{self.dataset.ids[index]} has no {name.replace('_', ' ')}{hint}")
            if name == "colors" and field.dtype == np.uint8:  # other data sets store fractions
                field = field / np.float32(255)
            fields[name] = torch.from_numpy(field)
        return fields

    def _read_label(self, index: int) -> int:
        if not len(self.dataset.labels):
            raise ValueError(f"{type(self.dataset).__name__} has no labels")
        if (label := int(self.dataset.labels[index])) < 0:
            raise ValueError(
                f"{self.dataset.ids[index]} has no class: remove it, or assign it a class"
            )
        return label

    def _read_image(self, index: int, seed: int) -> Tensor:
        if self.augment_image is None:
            raise ValueError(
                "live image teachers need images: pass `augment_image` to SampleDataset"
            )
        if self.image_views is not None:
            seed = image_view_seed(self.dataset.ids[index], seed % self.image_views)
        return self.augment_image(self.dataset.image(index), seed)
