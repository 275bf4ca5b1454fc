"""Nearest neighbors, exact pairwise distances, and gathering by index."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recon.ops.native import knn_native


def gather_rows(
    values: Float[Tensor, "b n c"], index: Int[Tensor, "b *k"]
) -> Float[Tensor, "b *k c"]:
    """Gather rows of each cloud by index; (B, N, C) and (B, ...) -> (B, ..., C)."""
    rows = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, rows).view(*index.shape, values.shape[-1])


def pairwise_distances(
    x: Float[Tensor, "*b n 3"], y: Float[Tensor, "*b m 3"]
) -> Float[Tensor, "*b n m"]:
    """Compute Euclidean distances from differences; (..., N, 3), (..., M, 3) -> (..., N, M).

    The expansion |x|^2 - 2xy + |y|^2 loses half the digits where points nearly coincide, which
    swaps neighbors.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def knn(
    queries: Float[Tensor, "b m 3"], points: Float[Tensor, "b n 3"], k: int
) -> Int[Tensor, "b m {k}"]:
    """Return indices (B, M, k) of the `k` points nearest each query, in no particular order.

    Raises ValueError if `k` is not in [1, N].
    """
    if not 0 < k <= points.shape[1]:
        raise ValueError(
            f"cannot find {k} neighbors among {points.shape[1]} points: "
            "give the clouds more points or lower group_size"
        )
    picked = (
        None if torch.compiler.is_compiling() else knn_native(queries.detach(), points.detach(), k)
    )
    return knn_torch(queries, points, k) if picked is None else picked


def knn_torch(
    queries: Float[Tensor, "b m 3"], points: Float[Tensor, "b n 3"], k: int
) -> Int[Tensor, "b m {k}"]:
    """Find the same neighbors as `knn` from all pairwise distances, on any device."""
    return pairwise_distances(queries, points).topk(k, largest=False, sorted=False).indices
