"""Patches to tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from recon.ops.neighbors import gather


class PatchEmbed(nn.Module):
    """Embed each patch of points as one token by a small PointNet [1].

    Shapes: patches (B, G, K, 3) -> tokens (B, G, dim); with `visible` (B, V), the numbers of
    some patches, only their tokens (B, V, dim). `widths` are the hidden widths: of the points, of
    the patch, and of both together. In training, batch statistics are taken over all points of
    all patches, visible or not, as released; with `embed_visible_only` over those of the visible
    patches, which is faster and learns something else.

    [1] Pang et al., arXiv:2203.06604, section 3.1.
    """

    def __init__(
        self,
        dim: int,
        *,
        widths: Sequence[int] = (128, 256, 512),
        embed_visible_only: bool = False,
    ) -> None:
        super().__init__()
        self.embed_visible_only = embed_visible_only
        point, patch, joint = widths
        self.point_in, self.point_norm = nn.Linear(3, point), nn.BatchNorm1d(point)
        self.point_out = nn.Linear(point, patch)
        # Columns of `joint_in`: first the patch's maximum, then the point's own feature.
        self.joint_in, self.joint_norm = nn.Linear(2 * patch, joint), nn.BatchNorm1d(joint)
        self.joint_out = nn.Linear(joint, dim)
        for layer in (self.point_in, self.point_out, self.joint_in, self.joint_out):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        if visible is not None and (self.embed_visible_only or not self.training):
            patches = gather(patches.flatten(2), visible).unflatten(2, (-1, 3))
            visible = None
        b, g, k, _ = patches.shape
        # Channels before points: there float32 convolutions are 1.0-1.4 times as fast as linear
        # layers over one long matrix, and batch statistics keep two more digits.
        x = _pointwise(patches.reshape(b * g, k, 3).transpose(1, 2), self.point_in)
        x = _pointwise(F.relu(self.point_norm(x), inplace=True), self.point_out)
        # The patch's half of the joint layer is the same for its K points: multiply it once.
        of_patch, of_point = self.joint_in.weight.chunk(2, dim=1)
        shared = F.linear(x.max(2).values, of_patch, self.joint_in.bias).unsqueeze(2)
        x = self.joint_norm(F.conv1d(x, of_point.unsqueeze(2)) + shared)
        if visible is not None:  # the others have entered the statistics: their work is done
            first = torch.arange(0, b * g, g, device=visible.device).unsqueeze(1)
            x = x.index_select(0, (visible + first).flatten())
        x = _pointwise(F.relu(x, inplace=True), self.joint_out)
        return x.max(2).values.view(b, -1, self.joint_out.out_features)


def _pointwise(x: Float[Tensor, "p c k"], layer: nn.Linear) -> Float[Tensor, "p d k"]:
    """Apply a linear layer to each point."""
    return F.conv1d(x, layer.weight.unsqueeze(2), layer.bias)
