"""What a data set of clouds knows, and how one sample of it is drawn."""

import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from recon.data.batch import Draw


class PointCloudDataset(ABC):
    """Clouds and what belongs to them, each read when it is asked for."""

    ids: Sequence[str]
    """Unique names, in the order of the data set."""
    classes: Sequence[str] = ()
    """Names of the classes, where shapes have labels; zero-shot asks a text teacher for them."""

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def points(self, index: int) -> Float[np.ndarray, "n 3"]:
        """Return one cloud as it lies on disk, (N, 3) float32."""

    def image(self, index: int) -> Image.Image:
        """Return a picture of one shape; raise ValueError where the data set has none."""
        raise ValueError(f"{type(self).__name__} has no image of {self.ids[index]}")

    def texts(self, index: int) -> Sequence[str]:
        """Return sentences about one shape; raise ValueError where the data set has none."""
        raise ValueError(f"{type(self).__name__} has no text about {self.ids[index]}")

    def category(self, index: int) -> int:
        """Return the number of one shape's category text, a label; raise ValueError likewise."""
        raise ValueError(f"{type(self).__name__} has no category of {self.ids[index]}")


def check_cloud(points: np.ndarray, source: str) -> Float[np.ndarray, "n 3"]:
    """Return (N, 3) float32 coordinates; raise ValueError that names the source of bad ones."""
    if points.ndim != 2 or points.shape[1] < 3 or not np.issubdtype(points.dtype, np.number):
        raise ValueError(
            f"{source}: holds {points.dtype} of shape {points.shape}, "
            "expected numbers of shape (N, 3): convert it or take it off the list"
        )
    cloud = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    if not (finite := np.isfinite(cloud).all(1)).all():
        raise ValueError(
            f"{source}: {int((~finite).sum())} of {len(cloud)} points are NaN or infinite: "
            "remove those points or take the file off the list"
        )
    return cloud


def view_seed(name: str, view: int) -> int:
    """Return the seed of the `view`-th fixed augmentation of a named shape's picture."""
    return zlib.crc32(f"{name}#{view}".encode())


class Samples(Dataset[dict[str, Any]]):
    """Draws of a data set: its clouds, and of the rest what `keys` ask for.

    All randomness comes from a draw's seed: the sentence among those about the shape, and the
    augmentation of its picture, one of `image_views` fixed ones where that is a number.
    """

    def __init__(
        self,
        dataset: PointCloudDataset,
        *,
        keys: Collection[str] = (),
        augment_image: Callable[[Image.Image, int], Tensor] | None = None,
        image_views: int | None = None,
    ) -> None:
        self.dataset, self.keys = dataset, frozenset(keys)
        self.augment_image, self.image_views = augment_image, image_views

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        index, seed = draw.row, draw.seed
        sample = {
            "points": torch.from_numpy(self.dataset.points(index)),
            "id": self.dataset.ids[index],
            "seed": seed,
        }
        if "text" in self.keys:
            sample["text"] = random.Random(seed).choice(self.dataset.texts(index))
        if "category" in self.keys:
            sample["category"] = self.dataset.category(index)
        if "image" in self.keys:
            sample["image"] = self._image(index, seed)
        return sample

    def _image(self, index: int, seed: int) -> Tensor:
        if self.augment_image is None:
            raise ValueError("live image teachers need `augment_image`")
        if self.image_views is not None:
            seed = view_seed(self.dataset.ids[index], seed % self.image_views)
        return self.augment_image(self.dataset.image(index), seed)
