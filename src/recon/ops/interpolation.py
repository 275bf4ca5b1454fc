"""Features of a few centres, carried to all points around them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from recon.ops.neighbors import gather_rows, pairwise_distances

NUM_NEIGHBORS = 3
EPSILON = 1e-8


class NearestCenters(NamedTuple):
    """The centres nearest each point, and how much each of them counts; weights add up to 1."""

    indices: Int[Tensor, "b n k"]
    weight: Float[Tensor, "b n k"]


def three_nn(points: Float[Tensor, "b n 3"], centers: Float[Tensor, "b m 3"]) -> NearestCenters:
    """Find the three centres nearest each point, weighted by inverse squared distance [1].

    Shapes: points (B, N, 3), centers (B, M, 3) -> rows and weight (B, N, 3), or (B, N, M) where
    there are fewer centres.

    [1] Qi et al., PointNet++, arXiv:1706.02413, equation 2 (p = 2, k = 3).
    """
    count = min(NUM_NEIGHBORS, centers.shape[1])
    distance, index = pairwise_distances(points, centers).topk(count, largest=False, sorted=False)
    inverse = 1 / (distance.square() + EPSILON)
    return NearestCenters(index, inverse / inverse.sum(-1, keepdim=True))


def three_interpolate(
    values: Float[Tensor, "b m c"], nearest: NearestCenters
) -> Float[Tensor, "b n c"]:
    """Return each point's weighted mean of its nearest centres' values.

    Shapes: values (B, M, C) -> (B, N, C). Nothing of size (B, N, 3, C) is made, but in exported
    graphs: bags of embeddings are a loop in ONNX.
    """
    if torch.compiler.is_exporting():
        return (
            gather_rows(values, nearest.indices) * nearest.weight.unsqueeze(-1).to(values.dtype)
        ).sum(2)
    batch, centers, width = values.shape
    first = torch.arange(batch, device=values.device).view(-1, 1, 1) * centers
    mean = F.embedding_bag(
        (nearest.indices + first).flatten(0, 1),
        values.flatten(0, 1),
        per_sample_weights=nearest.weight.flatten(0, 1).to(values.dtype),
        mode="sum",
    )
    return mean.view(batch, -1, width)
