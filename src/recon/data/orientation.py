"""Turn the up axis of the clouds of a batch."""

from recon.data.batch import Batch, concat_clouds, get_clouds, replace_clouds, split_clouds
from recon.data.transforms import AlignUpAxis


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
