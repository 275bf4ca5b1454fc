"""Chamfer distances between small point sets."""

import torch
from jaxtyping import Float
from torch import Tensor

from recon.ops.neighbors import gather_rows, pairwise_distances


def _to_nearest(
    x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b m 3"]]:
    """Return each point minus its nearest in the other set, both ways, with gradients."""
    with torch.no_grad():
        distances = pairwise_distances(x, y)
        of_x, of_y = distances.argmin(2), distances.argmin(1)
    return x - gather_rows(y, of_x), y - gather_rows(x, of_y)


def chamfer_l2(x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]) -> Float[Tensor, " b"]:
    """Squared Chamfer distance, both directions added, in squared coordinate units.

    Shapes: (B, N, 3), (B, M, 3) -> (B,).
    """
    forward, backward = _to_nearest(x, y)
    return forward.square().sum(-1).mean(1) + backward.square().sum(-1).mean(1)


def chamfer_l1(x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]) -> Float[Tensor, " b"]:
    """Mean of the two directions' mean Euclidean distances, in coordinate units.

    Shapes: (B, N, 3), (B, M, 3) -> (B,). The gradient is 0 where two points coincide; the
    released code has NaN there.
    """
    forward, backward = _to_nearest(x, y)
    norm = torch.linalg.vector_norm
    return (norm(forward, dim=-1).mean(1) + norm(backward, dim=-1).mean(1)) / 2
