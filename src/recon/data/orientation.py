"""Turn the up axis of single clouds and of the clouds of a batch."""

import numpy as np
import torch

from recon.data.batch import Batch, concat_clouds, get_clouds, replace_clouds, split_clouds
from recon.data.dataset import Cloud
from recon.data.transforms import AlignUpAxis

TURNED_NOTE = "its format or content declares {} up: turned to {}"
"""Note on a cloud whose declared up axis was turned."""


def turn_cloud(cloud: Cloud, source: str, target: str) -> Cloud:
    """Turn the up axis `source` of a cloud to `target`, with its normals and its origin."""
    align = AlignUpAxis(source, target)

    def turn(vectors: np.ndarray) -> np.ndarray:
        turned: np.ndarray = align(torch.from_numpy(vectors)[None])[0].numpy()
        return turned

    origin = cloud.origin
    if origin is not None:
        x, y, z = turn(np.array([origin]))[0].tolist()
        origin = (x, y, z)
    normals = None if cloud.normals is None else turn(cloud.normals)
    return cloud._replace(points=turn(cloud.points), normals=normals, origin=origin, up=target)


def align_up_axis(batch: Batch, target: str) -> Batch:
    """Turn the up axis of each cloud of a batch, `batch["up"]`, to the axis `target`."""
    clouds = get_clouds(batch)
    orientations = [*zip(batch["up"], batch["mirrored"].tolist(), strict=True)]
    if len({*orientations}) == 1:
        up, mirrored = orientations[0]
        return replace_clouds(batch, AlignUpAxis(up, target, mirror=mirrored)(clouds))
    aligned = [
        AlignUpAxis(up, target, mirror=mirrored)(cloud)
        for (up, mirrored), cloud in zip(orientations, split_clouds(clouds), strict=True)
    ]
    return replace_clouds(batch, concat_clouds(aligned))
