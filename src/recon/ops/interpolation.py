"""Three-nearest-neighbor interpolation of features from patch centers to points."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from recon.ops.neighbors import gather_rows, pairwise_distances

NUM_NEIGHBORS = 3
EPSILON = 1e-8


class NearestCenters(NamedTuple):
    """The centers nearest each point, and their interpolation weights, which sum to 1."""

    indices: Int[Tensor, "b n k"]
    weight: Float[Tensor, "b n k"]


def three_nn(points: Float[Tensor, "b n 3"], centers: Float[Tensor, "b m 3"]) -> NearestCenters:
    """Find the three centers nearest each point, weighted by inverse squared distance [1].

    Shapes: points (B, N, 3), centers (B, M, 3) -> indices and weight (B, N, 3), or (B, N, M) if
    there are fewer than three centers.

    [1] Qi et al., PointNet++, arXiv:1706.02413, equation 2 (p = 2, k = 3).
    """
    count = min(NUM_NEIGHBORS, centers.shape[1])
    distance, index = pairwise_distances(points, centers).topk(count, largest=False, sorted=False)
    inverse = 1 / (distance.square() + EPSILON)
    return NearestCenters(index, inverse / inverse.sum(-1, keepdim=True))


def three_interpolate(
    values: Float[Tensor, "b m c"], nearest: NearestCenters
) -> Float[Tensor, "b n c"]:
    """Return the weighted mean of the values at each point's nearest centers.

    Shapes: values (B, M, C) -> (B, N, C). No tensor of size (B, N, 3, C) is allocated, except in
    exported graphs: ONNX turns an embedding bag into a loop.
    """
    if torch.compiler.is_exporting():
        return (
            gather_rows(values, nearest.indices) * nearest.weight.unsqueeze(-1).to(values.dtype)
        ).sum(2)
    batch, centers, width = values.shape
    offsets = torch.arange(batch, device=values.device).view(-1, 1, 1) * centers
    mean = F.embedding_bag(
        (nearest.indices + offsets).flatten(0, 1),
        values.flatten(0, 1),
        per_sample_weights=nearest.weight.flatten(0, 1).to(values.dtype),
        mode="sum",
    )
    return mean.view(batch, -1, width)
