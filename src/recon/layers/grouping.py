"""Group a point cloud into local patches: farthest point centers and their neighbors."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.neighbors import gather_rows, knn
from recon.ops.sampling import farthest_point_sample


class Patches(NamedTuple):
    """Overlapping local patches of a cloud, in the cloud's units."""

    points: Float[Tensor, "b g k 3"]
    """Points relative to their patch's center."""
    centers: Float[Tensor, "b g 3"]


def check_clouds(points: object) -> None:
    """Raise if clouds are not a tensor of shape (B, N, 3) with finite coordinates.

    Raises TypeError for other types, ValueError for other shapes and for NaN or infinity.
    """
    if not isinstance(points, Tensor):
        raise TypeError(
            f"clouds must be a torch tensor (B, N, 3), got {type(points).__name__}: "
            "convert one cloud with torch.from_numpy(points)[None]"
        )
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"clouds must have the shape (B, N, 3), got {tuple(points.shape)}")
    if not torch.compiler.is_compiling() and not (finite := points.isfinite().all(2)).all():
        cloud, point = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"cloud {cloud} has a NaN or infinite coordinate at point {point}: remove such points"
        )


class PatchGrouper(nn.Module):
    """Group a cloud into overlapping patches: farthest point centers and nearest neighbors [1].

    Shapes: points (B, N, 3) -> patches (B, G, K, 3), centers (B, G, 3).
    Raises ValueError for other shapes, for non-finite points, and for fewer points than `groups` or
    `group_size`.

    [1] Pang et al., arXiv:2203.06604, section 3.1.
    """

    def __init__(self, groups: int, group_size: int, *, skip_near_origin: bool = False) -> None:
        super().__init__()
        self.groups, self.group_size = groups, group_size
        self.skip_near_origin = skip_near_origin

    def forward(self, points: Float[Tensor, "b n 3"]) -> Patches:
        check_clouds(points)
        picked = farthest_point_sample(points, self.groups, skip_near_origin=self.skip_near_origin)
        centers = gather_rows(points, picked)
        members = gather_rows(points, knn(centers, points, self.group_size))
        return Patches(members - centers.unsqueeze(2), centers)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, group_size={self.group_size}"
