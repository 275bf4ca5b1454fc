"""Draw masks over patches, and split patches by a mask: boolean (B, G), True where masked."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recon.ops.neighbors import pairwise_distances


class MaskIndices(NamedTuple):
    """Indices of visible and masked patches, ascending; their shapes do not depend on the data."""

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b h"]


def split_by_mask(mask: Tensor, groups: int) -> MaskIndices:
    """Return the indices of the visible and of the masked patches.

    Shapes: mask (B, G), True where masked -> visible (B, V), masked (B, H). Raises ValueError if
    the mask is not boolean (integers would index, not select) or is not of `groups` patches, or if
    the clouds do not all have the same number of masked patches, at least one and not all.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"a mask must be boolean, True where masked, got {mask.dtype}")
    if mask.ndim != 2 or mask.shape[1] != groups:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit {groups} patches")
    counts = mask.sum(1).tolist()
    if min(counts) != max(counts) or not 0 < counts[0] < groups:
        raise ValueError(
            "a mask must cover the same number of patches in every cloud, at least one and not "
            f"all: it covers {counts} of {groups}"
        )
    visible, masked = mask.sort(dim=1, stable=True).indices.tensor_split([groups - counts[0]], 1)
    return MaskIndices(visible, masked)


def _mask_smallest(scores: Float[Tensor, "b g"], ratio: float) -> Bool[Tensor, "b g"]:
    """Mask the int(ratio * G) patches with the smallest scores."""
    if not 0 <= ratio < 1:
        raise ValueError(f"mask ratio must be in [0, 1), got {ratio}")
    num_masked = int(ratio * scores.shape[1])
    order = scores.argsort(1)[:, :num_masked]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def random_mask(centers: Float[Tensor, "b g 3"], ratio: float) -> Bool[Tensor, "b g"]:
    """Mask int(ratio * G) random patches of each cloud; (B, G, 3) -> (B, G).

    Raises ValueError if `ratio` is not in [0, 1).
    """
    return _mask_smallest(torch.rand_like(centers[..., 0]), ratio)


def block_mask(centers: Float[Tensor, "b g 3"], ratio: float) -> Bool[Tensor, "b g"]:
    """Mask the int(ratio * G) patches nearest a random center, itself included.

    Shapes: centers (B, G, 3) -> (B, G). Raises ValueError if `ratio` is not in [0, 1).
    """
    batch, groups, _ = centers.shape
    seeds = torch.randint(groups, (batch, 1, 1), device=centers.device).expand(-1, -1, 3)
    return _mask_smallest(pairwise_distances(centers.gather(1, seeds), centers)[:, 0], ratio)
