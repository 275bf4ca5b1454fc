"""Embed patches of points as tokens by a mini-PointNet."""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_linear_bn_eval

from recon.layers.batch_norm import batch_norm_affine
from recon.ops.linear_statistics import gram_matrix, linear_output_variance
from recon.ops.neighbors import gather_rows
from recon.ops.pooling import linear_max


class PatchEmbed(nn.Module):
    """Embed each patch of points as one token by a mini-PointNet [1].

    Shapes: patches (B, G, K, 3) -> tokens (B, G, dim); with `visible` (B, V), the indices of some
    patches, only their tokens (B, V, dim). `widths` are the widths of the first point layer, of
    the patch feature and of the joint layer.

    In training, batch statistics are taken over the points of all patches, visible or masked, as in
    the released code. With `embed_visible_only` they are taken over the visible patches, which is
    faster but changes the training.

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
        if len(widths) != 3:
            raise ValueError(
                f"patch_widths={[*widths]}: must be three widths, e.g. [128, 256, 512]"
            )
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
            patches, visible = _select_patches(patches, visible), None
        by_moments = self.training and all(
            norm.training and _is_local_batch_norm(norm)  # a frozen one keeps its statistics
            for norm in (self.point_norm, self.joint_norm)
        )
        tokens = (self._embed_by_moments if by_moments else self.embed_reference)(patches, visible)
        return tokens.view(patches.shape[0], -1, self.joint_out.out_features)

    def embed_reference(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None
    ) -> Float[Tensor, "p d"]:
        """Embed by calling the batch norms: for evaluation, and for synchronized batch norms."""
        x = F.relu(
            _apply_batch_norm(self.point_norm, self.point_in(patches.flatten(0, 1))), inplace=True
        )
        x = self.point_out(x)
        # The patch's half of the joint layer is the same for its K points: multiply it once.
        patch_weight, point_weight = self.joint_in.weight.chunk(2, dim=1)
        patch_share = F.linear(x.amax(1), patch_weight, self.joint_in.bias).unsqueeze(1)
        x = _apply_batch_norm(self.joint_norm, F.linear(x, point_weight) + patch_share)
        if visible is not None:  # the masked patches were needed for the statistics only
            x = x[_flatten_indices(visible, patches.shape[1])]
        return linear_max(x, self.joint_out.weight, self.joint_out.bias, rectify=True)

    def _embed_by_moments(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None
    ) -> Float[Tensor, "p d"]:
        """Embed in training, with batch statistics computed from the inputs of the layers.

        Each norm is merged into the layer before it. Masked patches only enter the statistics, so
        the joint layer skips them. No activation separates `point_out` from `joint_in`, so the two
        are merged for the points; `point_out` alone is applied only for the patches' maxima.
        """
        points, count = patches.flatten(0, 1), patches.shape[:2].numel()
        if visible is not None:
            points, count = points[_order_visible_first(visible, patches.shape[1])], visible.numel()
        x = F.relu(F.linear(points, *self._merge_point_norm(points)), inplace=True)
        maximum = linear_max(x, self.point_out.weight, self.point_out.bias)
        weight, patch_share = self._merge_joint_norm(x, maximum)
        joint = F.linear(x[:count], weight)
        joint = joint.add_(patch_share[:count].unsqueeze(1).to(joint.dtype))
        return linear_max(joint, self.joint_out.weight, self.joint_out.bias, rectify=True)

    def _merge_point_norm(self, points: Float[Tensor, "p k 3"]) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of the first layer with its batch norm merged into it."""
        with torch.autocast(points.device.type, enabled=False):
            weight, bias, points = self.point_in.weight, self.point_in.bias, points.flatten(0, 1)
            mean = points.mean(0)
            covariance = gram_matrix(points - mean) / len(points)
            scale, shift = batch_norm_affine(
                self.point_norm,
                F.linear(mean, weight, bias),
                linear_output_variance(weight, covariance),
                len(points),
            )
            return scale.unsqueeze(1) * weight, scale * bias + shift

    def _merge_joint_norm(
        self, x: Float[Tensor, "p k c"], maximum: Float[Tensor, "p e"]
    ) -> tuple[Float[Tensor, "j c"], Float[Tensor, "p j"]]:
        """Return `point_out`, `joint_in` and the joint norm merged: point weight and patch share.

        The variance within patches follows from x, since no activation separates the layers. The
        variance between patches is that of the patch means after the merged layers.
        """
        with torch.autocast(x.device.type, enabled=False):
            patch_weight, point_weight, bias = _merge_linear(self.point_out, self.joint_in)
            # Not `mean`: its backward pass divides once per point, not once per patch.
            count, mean = x.shape[:2].numel(), x.sum(1, dtype=point_weight.dtype) / x.shape[1]
            # Deviations from the mean sum to zero, so its gradient is zero: detach it.
            deviations = x - mean.detach().unsqueeze(1).to(x.dtype)
            covariance = gram_matrix(deviations.flatten(0, 1)) / count
            patch_share = F.linear(maximum.to(point_weight.dtype), patch_weight, bias)
            patch_mean = patch_share + F.linear(mean, point_weight)
            scale, shift = batch_norm_affine(
                self.joint_norm,
                patch_mean.mean(0),
                patch_mean.var(0, correction=0) + linear_output_variance(point_weight, covariance),
                count,
            )
            return scale.unsqueeze(1) * point_weight, scale * patch_share + shift


def _merge_linear(before: nn.Linear, joint: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """Merge `before` into the joint layer: weights of the patch and of the input, and the bias.

    No activation separates the two layers.
    """
    patch_weight, point_weight = joint.weight.chunk(2, dim=1)
    return patch_weight, point_weight @ before.weight, joint.bias + point_weight @ before.bias


def _build_linear(
    weight: Float[Tensor, "d c"], bias: Tensor | None, *, like: nn.Linear
) -> nn.Linear:
    """Return a linear layer of this weight, with the device and dtype of another layer."""
    size, dtype = (weight.shape[1], weight.shape[0]), weight.dtype
    # skip_init draws no random numbers.
    layer = skip_init(nn.Linear, *size, bias=bias is not None, dtype=dtype)
    values = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    layer.load_state_dict(values)
    return layer.to(like.weight.device, like.weight.dtype)


def _is_local_batch_norm(norm: nn.Module) -> bool:
    """Return whether a batch norm has statistics of this process only, in float32 or float64."""
    dtypes = (torch.float32, torch.float64)
    return type(norm) is nn.BatchNorm1d and norm.weight.dtype in dtypes


def _apply_batch_norm(norm: nn.Module, x: Float[Tensor, "p k c"]) -> Float[Tensor, "p k c"]:
    """Apply a batch norm with statistics over all points of all patches."""
    return norm(x.flatten(0, 1)).view_as(x)


def _flatten_indices(indices: Int[Tensor, "b v"], patches: int) -> Int[Tensor, " p"]:
    """Turn patch indices within each cloud into indices within the batch."""
    offsets = torch.arange(0, len(indices) * patches, patches, device=indices.device)
    return (indices + offsets.unsqueeze(1)).flatten()


def _order_visible_first(visible: Int[Tensor, "b v"], patches: int) -> Int[Tensor, " p"]:
    """Return the indices of all patches of a batch: first the visible ones of all clouds."""
    is_visible = visible.new_zeros(len(visible), patches).scatter_(1, visible, 1)
    masked = is_visible.argsort(dim=1, stable=True)[:, : patches - visible.shape[1]]
    return torch.cat([_flatten_indices(visible, patches), _flatten_indices(masked, patches)])


def _select_patches(
    patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"]
) -> Float[Tensor, "b v k 3"]:
    """Return the patches of these indices."""
    return gather_rows(patches.flatten(2), visible).unflatten(2, (-1, 3))


class FoldedPatchEmbed(nn.Module):
    """A trained `PatchEmbed` in evaluation, with its batch norms folded into its linear layers.

    The shapes are the same, and the values up to rounding. Consecutive linear layers without an
    activation between them are merged. Patches are processed in chunks that fit into the CPU
    cache: in bfloat16 on a CPU this is twice as fast.
    """

    def __init__(self, embed: PatchEmbed, *, chunk_size: int = 64) -> None:
        super().__init__()
        self.point_in = fuse_linear_bn_eval(embed.point_in.eval(), embed.point_norm.eval())
        self.point_out = deepcopy(embed.point_out)
        joint = fuse_linear_bn_eval(embed.joint_in.eval(), embed.joint_norm.eval())
        double_layers = (deepcopy(layer).cpu().double() for layer in (embed.point_out, joint))
        patch_weight, point_weight, bias = _merge_linear(*double_layers)
        self.patch_in = _build_linear(patch_weight, bias, like=joint)
        self.through = _build_linear(point_weight, None, like=joint)
        self.joint_out = deepcopy(embed.joint_out)
        self.chunk_size = chunk_size

    def forward(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        patches = patches if visible is None else _select_patches(patches, visible)
        chunks = patches.flatten(0, 1).split(self.chunk_size)
        return torch.cat([self._embed_chunk(chunk) for chunk in chunks]).unflatten(
            0, patches.shape[:2]
        )

    def _embed_chunk(self, patches: Float[Tensor, "p k 3"]) -> Float[Tensor, "p d"]:
        x = F.relu(self.point_in(patches), inplace=True)
        patch_share = self.patch_in(self.point_out(x).amax(1)).unsqueeze(1)
        return self.joint_out(F.relu(self.through(x).add_(patch_share), inplace=True)).amax(1)
