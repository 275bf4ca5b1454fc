"""Which patches are hidden from the encoder: boolean (B, G), True where hidden."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recon.ops.neighbors import pairwise_distances


class MaskIndices(NamedTuple):
    """Patches by number, in their order: of fixed shapes, as compilers and GPUs want them."""

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b h"]


def split_by_mask(mask: Tensor, groups: int) -> MaskIndices:
    """Return the numbers of the patches that a mask leaves and of those that it hides.

    Shapes: mask (B, G), True where hidden -> visible (B, V), hidden (B, H). Raises ValueError where
    the mask is not of bool (numbers would index, not choose) or not of `groups` patches, or where
    it does not hide the same number of patches of every cloud, neither all nor none.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"a mask must be of bool, True where hidden, not of {mask.dtype}")
    if mask.ndim != 2 or mask.shape[1] != groups:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit {groups} patches")
    counts = mask.sum(1).tolist()
    if min(counts) != max(counts) or not 0 < counts[0] < groups:
        raise ValueError(
            "a mask must hide the same number of patches of every cloud, neither all nor none: "
            f"it hides {counts} of {groups}"
        )
    visible, hidden = mask.sort(dim=1, stable=True).indices.tensor_split([groups - counts[0]], 1)
    return MaskIndices(visible, hidden)


def _hide_smallest(scores: Float[Tensor, "b g"], ratio: float) -> Bool[Tensor, "b g"]:
    if not 0 <= ratio < 1:
        raise ValueError(f"mask ratio must lie in [0, 1), got {ratio}")
    hidden = int(ratio * scores.shape[1])
    order = scores.argsort(1)[:, :hidden]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def random_mask(centers: Float[Tensor, "b g 3"], ratio: float) -> Bool[Tensor, "b g"]:
    """Hide int(ratio * G) patches of each cloud at random; (B, G, 3) -> (B, G).

    Raises ValueError where `ratio` is not in [0, 1).
    """
    return _hide_smallest(torch.rand_like(centers[..., 0]), ratio)


def block_mask(centers: Float[Tensor, "b g 3"], ratio: float) -> Bool[Tensor, "b g"]:
    """Hide the int(ratio * G) patches nearest a random centre, itself included.

    Shapes: centers (B, G, 3) -> (B, G). Raises ValueError where `ratio` is not in [0, 1).
    """
    batch, groups, _ = centers.shape
    seeds = torch.randint(groups, (batch, 1, 1), device=centers.device).expand(-1, -1, 3)
    return _hide_smallest(pairwise_distances(centers.gather(1, seeds), centers)[:, 0], ratio)
