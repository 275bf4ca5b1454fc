"""Which patches are hidden from the encoder: boolean (B, G), True where hidden."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recon.ops.neighbors import exact_distances


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
    return _hide_smallest(exact_distances(centers.gather(1, seeds), centers)[:, 0], ratio)
