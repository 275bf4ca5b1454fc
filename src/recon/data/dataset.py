"""Interface of point-cloud data sets: one cloud by index, with labels, images and texts."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from PIL import Image


class Cloud(NamedTuple):
    """One cloud as stored on disk, with the optional fields of its points."""

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"] | None = None
    colors: Num[np.ndarray, "n 3"] | None = None
    """RGB, uint8 in [0, 255] or fractions in [0, 1]."""
    location: Float[np.ndarray, "n 3"] | None = None
    """Position in the room, each axis in [0, 1]."""
    point_labels: Int[np.ndarray, " n"] | None = None
    """Class of each point."""
    origin: tuple[float, float, float] | None = None
    """Offset subtracted from the coordinates of the file if float32 cannot represent them."""
    up: str | None = None
    """Up axis that the file, or its format, declares."""
    unit_meters: float | None = None
    """Length of the file's unit in meters, if it or its format declares it."""
    notes: tuple[str, ...] = ()
    """What reading the file omitted or assumed, one sentence each."""

    def take(self, rows: Num[np.ndarray, " m"] | slice) -> "Cloud":
        """Return the selected points with their fields."""
        arrays = {k: v for k, v in self._asdict().items() if isinstance(v, np.ndarray)}
        fields: dict[str, Any] = {name: values[rows] for name, values in arrays.items()}
        return self._replace(**fields)


class PointCloudDataset(ABC):
    """Abstract data set of clouds, each read on access."""

    ids: Sequence[str]
    """Unique sample names, in the order of the data set."""
    classes: Sequence[str] = ()
    """Class names, if shapes have labels; zero-shot classification embeds them as text."""
    labels: Int[np.ndarray, " n"] = np.empty(0, dtype=np.int64)
    """Class of each shape, -1 for unlabeled shapes; empty if the data set has no labels."""
    families: Int[np.ndarray, " n"] = np.empty(0, dtype=np.int64)
    """Group of near-duplicates of each shape; empty if unknown."""
    point_classes: Sequence[str] = ()
    """Names of the point classes, if points have labels."""
    parts: Mapping[str, Sequence[int]] = {}
    """Maps each shape class to the point classes it may contain."""
    up: str = "y"
    """Up axis of the stored coordinates."""
    mirrored: bool = False
    """Whether aligning the up axis swaps two axes, which mirrors shapes, as in the literature."""
    in_memory: bool = False
    """Whether all clouds are read when the data set is opened."""
    shard_size: int = 256
    """Number of clouds per shard of the prepared layout."""

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def cloud(self, index: int) -> Cloud:
        """Return one cloud as stored on disk; raise ValueError with the name of an invalid file."""

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        """Return the cloud of one training sample; subclasses may draw a random part of it."""
        return self.cloud(index)

    def orientation(self, index: int) -> tuple[str, bool]:
        """Return `up` and `mirrored` of one cloud."""
        return self.up, self.mirrored

    def points(self, index: int) -> Float[np.ndarray, "n 3"]:
        """Return the coordinates of one cloud, (N, 3) float32."""
        return self.cloud(index).points

    def count_points(self, index: int) -> int | None:
        """Return the number of points of one cloud, None if only reading it tells the number."""
        return None

    def image(self, index: int) -> Image.Image:
        """Return an image of one shape; raise ValueError if the data set has no images."""
        raise ValueError(f"{type(self).__name__} has no image of {self.ids[index]}")

    def image_bytes(self, index: int) -> bytes | None:
        """Return the encoded image file, None if the data set has no images."""
        if type(self).image is PointCloudDataset.image:
            return None
        file = io.BytesIO()
        self.image(index).save(file, "PNG")
        return file.getvalue()

    def texts(self, index: int) -> Sequence[str]:
        """Return sentences about one shape; raise ValueError if the data set has no texts."""
        raise ValueError(f"{type(self).__name__} has no text about {self.ids[index]}")

    def category(self, index: int) -> int:
        """Return the category of one shape (a label); raise ValueError if there are none.

        Shapes of one category share their texts.
        """
        raise ValueError(f"{type(self).__name__} has no category of {self.ids[index]}")

    def file_paths(self, index: int) -> Sequence[Path]:
        """Return the files of one sample; `recon.prepare` converts it again if they change."""
        return ()

    def file_warnings(self) -> list[str]:
        """Return warnings about the files that no error reports, such as images without a cloud."""
        return []


class DatasetView(PointCloudDataset):
    """Select samples of other data sets by pairs (data set, index in it).

    `label_map` maps the original labels to labels of this view, and `classes` names them.
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
            mapped = labels if label_map is None else [label_map[label] for label in labels]
            self.labels = np.array(mapped, dtype=np.int64)

    @property
    def label_counts(self) -> Int[np.ndarray, " classes"] | None:
        """Return the number of points of each class in the first data set, None if unknown."""
        return getattr(self.members[0], "label_counts", None)

    def cloud(self, index: int) -> Cloud:
        member, row = self.rows[index]
        return self.members[member].cloud(row)

    def sample_cloud(self, index: int, seed: int) -> Cloud:
        member, row = self.rows[index]
        return self.members[member].sample_cloud(row, seed)

    def orientation(self, index: int) -> tuple[str, bool]:
        member, row = self.rows[index]
        return self.members[member].orientation(row)

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
    """Concatenate data sets."""
    if len(datasets) == 1:
        return datasets[0]
    return DatasetView(
        datasets, [(m, row) for m, data in enumerate(datasets) for row in range(len(data))]
    )


def resample_cloud(cloud: Cloud, num_points: int, seed: int) -> Cloud:
    """Draw `num_points` random points; smaller clouds keep all points and repeat some."""
    if len(cloud.points) == num_points:
        return cloud
    return cloud.take(resample_rows(len(cloud.points), num_points, seed))


def resample_rows(count: int, num_points: int, seed: int) -> Int[np.ndarray, " num_points"]:
    """Draw the rows of `num_points` of `count` points; all of them and some twice if too few."""
    rng = np.random.default_rng(seed)
    if count >= num_points:
        return rng.choice(count, num_points, replace=False, shuffle=False)
    return np.concatenate([np.arange(count), rng.integers(0, count, num_points - count)])
