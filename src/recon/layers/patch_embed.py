"""Patches to tokens."""

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
        fast = self.training and all(map(_usual, (self.point_norm, self.joint_norm)))
        tokens = (self._by_moments if fast else self.embed_reference)(patches, visible)
        return tokens.view(patches.shape[0], -1, self.joint_out.out_features)

    def embed_reference(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None
    ) -> Float[Tensor, "p d"]:
        """Embed with batch norms as they are: evaluation, and statistics of several processes."""
        x = F.relu(_normalised(self.point_norm, self.point_in(patches.flatten(0, 1))), inplace=True)
        x = self.point_out(x)
        # The patch's half of the joint layer is the same for its K points: multiply it once.
        of_patch, of_point = self.joint_in.weight.chunk(2, dim=1)
        shared = F.linear(x.amax(1), of_patch, self.joint_in.bias).unsqueeze(1)
        x = _normalised(self.joint_norm, F.linear(x, of_point) + shared)
        if visible is not None:  # the others have entered the statistics: their work is done
            x = x[_rows(visible, patches.shape[1])]
        return linear_max(x, self.joint_out.weight, self.joint_out.bias, rectify=True)

    def _by_moments(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None
    ) -> Float[Tensor, "p d"]:
        """Embed in training, with batch statistics taken from what goes into the layers.

        The norms then are part of the layers before them, and hidden patches, which only enter
        statistics, need no joint layer. Between it and the layer before lies no activation: a
        point passes both at once, and the layer before by itself is for the maxima alone.
        """
        points, count = patches.flatten(0, 1), patches.shape[:2].numel()
        if visible is not None:
            points, count = points[_visible_first(visible, patches.shape[1])], visible.numel()
        x = F.relu(F.linear(points, *self._normalised_point_in(points)), inplace=True)
        largest = linear_max(x, self.point_out.weight, self.point_out.bias)
        weight, of_patch = self._normalised_joint_in(x, largest)
        joint = F.linear(x[:count], weight)
        joint = joint.add_(of_patch[:count].unsqueeze(1).to(joint.dtype))
        return linear_max(joint, self.joint_out.weight, self.joint_out.bias, rectify=True)

    def _normalised_point_in(self, points: Float[Tensor, "p k 3"]) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the first layer, its batch norm within."""
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

    def _normalised_joint_in(
        self, x: Float[Tensor, "p k c"], largest: Float[Tensor, "p e"]
    ) -> tuple[Float[Tensor, "j c"], Float[Tensor, "p j"]]:
        """Return weight and patches' share of both last hidden layers, the norm within.

        Variance within patches comes from x, since no activation lies between; variance between
        patches from what the layer makes of their means.
        """
        with torch.autocast(x.device.type, enabled=False):
            of_patch, through, bias = _through(self.point_out, self.joint_in)
            # Not `mean`, whose gradient divides every point's part, not a patch's.
            count, mean = x.shape[:2].numel(), x.sum(1, dtype=through.dtype) / x.shape[1]
            # The mean is detached: distances from it add up to nothing, so no gradient is lost.
            away = x - mean.detach().unsqueeze(1).to(x.dtype)
            within = gram_matrix(away.flatten(0, 1)) / count
            share = F.linear(largest.to(through.dtype), of_patch, bias)
            center = share + F.linear(mean, through)
            scale, shift = batch_norm_affine(
                self.joint_norm,
                center.mean(0),
                center.var(0, correction=0) + linear_output_variance(through, within),
                count,
            )
            return scale.unsqueeze(1) * through, scale * share + shift


def _through(before: nn.Linear, joint: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """Return a joint layer's weight of patches, that of what `before` takes, and the bias of both.

    No activation lies between them: a point passes the two as one.
    """
    of_patch, of_point = joint.weight.chunk(2, dim=1)
    return of_patch, of_point @ before.weight, joint.bias + of_point @ before.bias


def _linear(weight: Float[Tensor, "d c"], bias: Tensor | None, *, like: nn.Linear) -> nn.Linear:
    """Return a layer of this weight, on the device and in the precision of another."""
    size, dtype = (weight.shape[1], weight.shape[0]), weight.dtype
    layer = skip_init(nn.Linear, *size, bias=bias is not None, dtype=dtype)  # draws nothing
    values = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    layer.load_state_dict(values)
    return layer.to(like.weight.device, like.weight.dtype)


def _usual(norm: nn.Module) -> bool:
    """Whether a batch norm's statistics are of this process alone, and in full precision."""
    full = (torch.float32, torch.float64)
    return type(norm) is nn.BatchNorm1d and norm.weight.dtype in full


def _normalised(norm: nn.Module, x: Float[Tensor, "p k c"]) -> Float[Tensor, "p k c"]:
    return norm(x.flatten(0, 1)).view_as(x)


def _rows(numbers: Int[Tensor, "b v"], patches: int) -> Int[Tensor, " p"]:
    """Return where patches of a cloud lie among those of the batch."""
    first = torch.arange(0, len(numbers) * patches, patches, device=numbers.device)
    return (numbers + first.unsqueeze(1)).flatten()


def _visible_first(visible: Int[Tensor, "b v"], patches: int) -> Int[Tensor, " p"]:
    """Return all patches of a batch, the visible ones of all clouds before the hidden ones."""
    seen = visible.new_zeros(len(visible), patches).scatter_(1, visible, 1)
    hidden = seen.argsort(dim=1, stable=True)[:, : patches - visible.shape[1]]
    return torch.cat([_rows(visible, patches), _rows(hidden, patches)])


def _chosen(
    patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"]
) -> Float[Tensor, "b v k 3"]:
    return gather_rows(patches.flatten(2), visible).unflatten(2, (-1, 3))


class FoldedPatchEmbed(nn.Module):
    """What a trained `PatchEmbed` computes in evaluation, its batch norms folded into its layers.

    Shapes and values as there, up to rounding. A point passes the two layers between which no
    activation lies at once. Points are rows and patches go through in blocks that stay in a
    processor's cache: on a CPU in bfloat16 twice as fast.
    """

    def __init__(self, embed: PatchEmbed, *, chunk_size: int = 64) -> None:
        super().__init__()
        self.point_in = fuse_linear_bn_eval(embed.point_in.eval(), embed.point_norm.eval())
        self.point_out = deepcopy(embed.point_out)
        joint = fuse_linear_bn_eval(embed.joint_in.eval(), embed.joint_norm.eval())
        exact = (deepcopy(layer).cpu().double() for layer in (embed.point_out, joint))
        of_patch, through, bias = _through(*exact)
        self.patch_in = _linear(of_patch, bias, like=joint)
        self.through = _linear(through, None, like=joint)
        self.joint_out = deepcopy(embed.joint_out)
        self.block = chunk_size

    def forward(
        self, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        shown = patches if visible is None else _chosen(patches, visible)
        blocks = shown.flatten(0, 1).split(self.block)
        return torch.cat([self._tokens(some) for some in blocks]).unflatten(0, shown.shape[:2])

    def _tokens(self, patches: Float[Tensor, "p k 3"]) -> Float[Tensor, "p d"]:
        x = F.relu(self.point_in(patches), inplace=True)
        shared = self.patch_in(self.point_out(x).amax(1)).unsqueeze(1)
        return self.joint_out(F.relu(self.through(x).add_(shared), inplace=True)).amax(1)
