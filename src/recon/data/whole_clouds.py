"""Transform validation and test clouds, and keep all points of their files for the metrics."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from recon.data.batch import Batch, Clouds, get_clouds, pad_rows, replace_clouds, split_clouds
from recon.data.dataset import resample_rows
from recon.data.seeded_transforms import RandomStream, seed_generators, transform_each


class WholeCloud(NamedTuple):
    """A cloud of M points that a network sees, and the N points of its file."""

    clouds: Clouds
    """The cloud as a batch of one, (1, M, 3)."""
    file_points: Float[Tensor, "n 3"]
    file_labels: Int[Tensor, " n"] | None = None
    """Class of each point of the file."""
    rows: Int[Tensor, " m"] | None = None
    """Row in the file of each point that the network sees; None for all points, in order."""

    def spread(self, scores: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        """Turn scores of the M points into scores of all points of the file.

        Points that the network saw several times have their mean. Points that it did not see have
        the scores of the nearest point that it saw.
        """
        if self.rows is None:
            return scores
        rows, count = self.rows.to(scores.device), len(self.file_points)
        total = scores.new_zeros(count, scores.shape[1]).index_add_(0, rows, scores)
        views = torch.bincount(rows, minlength=count)
        mean, is_seen = total / views.clamp(min=1)[:, None], (views > 0).cpu().numpy()
        if is_seen.all():
            return mean
        points = self.file_points.cpu().numpy()
        nearest = KDTree(points[is_seen]).query(points[~is_seen])[1]
        seen_rows, other_rows = np.flatnonzero(is_seen)[nearest], np.flatnonzero(~is_seen)
        mean[torch.from_numpy(other_rows)] = mean[torch.from_numpy(seen_rows)]
        return mean


def get_whole_clouds(batch: Batch) -> list[WholeCloud]:
    """Return each cloud of a validation or test batch, without the points that pad it."""
    if "whole_clouds" in batch:
        return batch["whole_clouds"]
    return [
        WholeCloud(cloud, cloud.points[0], None if (x := cloud.point_labels) is None else x[0])
        for cloud in _remove_padding(batch)
    ]


def transform_for_test(
    batch: Batch, transform: Any, num_points: int | None = None, seed: int = 0
) -> Batch:
    """Transform each cloud of a validation or test batch, with the seed of its sample.

    In batches with all points of the files, the padding is not transformed, and clouds of fewer
    than `num_points` points repeat some, drawn with `seed` and labeled -1, as in training.
    `whole_clouds` then has all points of the files, also those that the transform leaves out.
    Raises ValueError for a transform that changes the number of points but not their `file_rows`.
    """
    generators = seed_generators(batch["seed"], batch["points"].device, RandomStream.TRANSFORM)
    if "sizes" not in batch:
        return replace_clouds(batch, transform_each(transform, get_clouds(batch), generators))
    whole_clouds = []
    for cloud, generator in zip(_remove_padding(batch), generators, strict=True):
        marked = _mark_rows(cloud, num_points, seed)
        transformed = transform_each(transform, marked, [generator])
        whole_clouds.append(_build_whole_cloud(cloud, marked, transformed))
    transformed = pad_clouds([whole.clouds for whole in whole_clouds])
    return replace_clouds({**batch, "whole_clouds": whole_clouds}, transformed)


def take_points(cloud: Clouds, rows: Int[Tensor, " m"] | slice) -> Clouds:
    """Select points with all their fields, the same ones of each cloud."""
    fields = {name: value[:, rows] for name, value in cloud._asdict().items() if value is not None}
    return Clouds(**fields)


def pad_clouds(clouds: Sequence[Clouds]) -> Clouds:
    """Concatenate batches of one cloud, padded to the largest; see `pad_rows`."""
    count = max(cloud.points.shape[1] for cloud in clouds)
    names = [name for name, value in clouds[0]._asdict().items() if value is not None]
    fields = {
        name: torch.stack([pad_rows(name, getattr(cloud, name)[0], count) for cloud in clouds])
        for name in names
    }
    return Clouds(**fields)


def _remove_padding(batch: Batch) -> list[Clouds]:
    """Split a batch into batches of one cloud, each with its own points."""
    clouds = split_clouds(get_clouds(batch))
    if "sizes" not in batch:
        return clouds
    sizes = batch["sizes"].tolist()
    return [take_points(cloud, slice(size)) for cloud, size in zip(clouds, sizes, strict=True)]


def _mark_rows(cloud: Clouds, num_points: int | None, seed: int) -> Clouds:
    """Add the row of each point; repeat points of a cloud with fewer than `num_points`."""
    count = cloud.points.shape[1]
    is_small = num_points is not None and count < num_points
    rows = resample_rows(count, num_points or 0, seed) if is_small else np.arange(count)
    file_rows = torch.from_numpy(rows).to(cloud.points.device)
    marked = take_points(cloud, file_rows)._replace(file_rows=file_rows[None])
    if marked.point_labels is not None:
        marked.point_labels[:, count:] = -1
    return marked


def _build_whole_cloud(cloud: Clouds, before: Clouds, transformed: Clouds) -> WholeCloud:
    """Return the cloud of a file after the transform, which had the cloud `before`."""
    count, new_count = before.points.shape[1], transformed.points.shape[1]
    rows = transformed.file_rows
    if rows is None and new_count == count:
        rows = before.file_rows
    if rows is None:
        raise ValueError(
            f"the test transform returned {new_count} of {count} points without their `file_rows`: "
            "select points of all fields of the clouds, or do it in training only"
        )
    is_same = torch.equal(rows[0], torch.arange(cloud.points.shape[1], device=rows.device))
    labels = None if cloud.point_labels is None else cloud.point_labels[0]
    return WholeCloud(
        transformed._replace(file_rows=None), cloud.points[0], labels, None if is_same else rows[0]
    )
