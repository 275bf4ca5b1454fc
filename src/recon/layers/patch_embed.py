"""Patches to tokens."""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from recon.ops.neighbors import gather
from recon.ops.pooling import linear_max


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
            patches, visible = _chosen(patches, visible), None
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
        tokens = linear_max(F.relu(x, inplace=True), self.joint_out.weight, self.joint_out.bias)
        return tokens.view(b, -1, self.joint_out.out_features)


def _chosen(
    patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"]
) -> Float[Tensor, "b v k 3"]:
    return gather(patches.flatten(2), visible).unflatten(2, (-1, 3))


def _pointwise(x: Float[Tensor, "p c k"], layer: nn.Linear) -> Float[Tensor, "p d k"]:
    """Apply a linear layer to each point."""
    return F.conv1d(x, layer.weight.unsqueeze(2), layer.bias)


class FoldedPatchEmbed(nn.Module):
    """What a trained `PatchEmbed` computes in evaluation, its batch norms folded into its layers.

    Shapes and values as there, up to rounding. Points are rows and patches go through in blocks
    that stay in a processor's cache: on a CPU in bfloat16 twice as fast.
    """

    def __init__(self, embed: PatchEmbed, *, block: int = 64) -> None:
        super().__init__()
        self.point_in = fuse_linear_bn_eval(embed.point_in.eval(), embed.point_norm.eval())
        self.point_out = deepcopy(embed.point_out)
        self.joint_in = fuse_linear_bn_eval(embed.joint_in.eval(), embed.joint_norm.eval())
        self.joint_out = deepcopy(embed.joint_out)
        self.block = block

    def forward(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        shown = patches if visible is None else _chosen(patches, visible)
        blocks = shown.flatten(0, 1).split(self.block)
        return torch.cat([self._tokens(some) for some in blocks]).unflatten(0, shown.shape[:2])

    def _tokens(self, patches: Float[Tensor, "p k 3"]) -> Float[Tensor, "p d"]:
        x = self.point_out(F.relu(self.point_in(patches), inplace=True))
        of_patch, of_point = self.joint_in.weight.chunk(2, dim=1)
        shared = F.linear(x.amax(1), of_patch, self.joint_in.bias).unsqueeze(1)
        x = F.relu(F.linear(x, of_point).add_(shared), inplace=True)
        return self.joint_out(x).amax(1)
