"""Chamfer distances between small point sets."""

import torch
from jaxtyping import Float
from torch import Tensor

from recon.ops.neighbors import gather_rows, pairwise_distances


def _subtract_nearest(
    x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b m 3"]]:
    """Return each point minus its nearest point in the other set, for both sets."""
    with torch.no_grad():
        distances = pairwise_distances(x, y)
        nearest_y, nearest_x = distances.argmin(2), distances.argmin(1)
    return x - gather_rows(y, nearest_y), y - gather_rows(x, nearest_x)


def chamfer_l2(x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]) -> Float[Tensor, " b"]:
    """Compute the squared Chamfer distance, the sum of both directions.

    Shapes: (B, N, 3), (B, M, 3) -> (B,), in squared coordinate units.
    """
    forward, backward = _subtract_nearest(x, y)
    return forward.square().sum(-1).mean(1) + backward.square().sum(-1).mean(1)


def chamfer_l1(x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]) -> Float[Tensor, " b"]:
    """Compute the Chamfer distance from Euclidean distances, the mean of both directions.

    Shapes: (B, N, 3), (B, M, 3) -> (B,), in coordinate units. The gradient is 0 where two points
    coincide; in the released code it is NaN.
    """
    forward, backward = _subtract_nearest(x, y)
    norm = torch.linalg.vector_norm
    return (norm(forward, dim=-1).mean(1) + norm(backward, dim=-1).mean(1)) / 2
