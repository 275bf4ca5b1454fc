"""Reference implementations of the optimized paths, written directly from the definitions.

`make_reference` puts them into a copy of a network. Weights, names and results stay the same.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from recon.layers.attention import CrossAttention, SelfAttention
from recon.layers.blocks import Block
from recon.layers.grouping import Patches, PatchGrouper
from recon.layers.patch_embed import PatchEmbed
from recon.layers.propagation import FeaturePropagation
from recon.models.segmenter import PointHead
from recon.ops.interpolation import three_nn
from recon.ops.neighbors import gather_rows, knn_torch


def farthest_point_sample(points: Float[Tensor, "b n 3"], count: int) -> Int[Tensor, "b count"]:
    """Farthest point sampling over (B, N, 3), with a new tensor for every intermediate."""
    rows = torch.arange(len(points), device=points.device)
    selected = torch.zeros(len(points), count, dtype=torch.long, device=points.device)
    nearest = torch.full(points.shape[:2], torch.inf, device=points.device)
    for i in range(1, count):
        last = points[rows, selected[:, i - 1]].unsqueeze(1)
        nearest = torch.minimum(nearest, ((points - last) ** 2).sum(-1))
        selected[:, i] = nearest.argmax(1)
    return selected


def chamfer_l2(x: Float[Tensor, "b n 3"], y: Float[Tensor, "b m 3"]) -> Float[Tensor, " b"]:
    """Squared Chamfer distance from all pairwise differences."""
    squared = (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(-1)
    return squared.amin(2).mean(1) + squared.amin(1).mean(1)


def category_contrast(
    features: Float[Tensor, "b d"], category: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Self-contrast by category, by a loop over pairs of clouds."""
    features = F.normalize(features, dim=-1)
    losses = []
    for anchor in range(len(features)):
        positive: list[Tensor] = []
        negative: list[Tensor] = []
        for other, similarity in enumerate((features @ features[anchor] / 0.1).unbind()):
            (positive if category[anchor] == category[other] else negative).append(similarity)
        mean = torch.stack(positive).mean()
        losses.append(torch.stack([mean, *negative]).logsumexp(0) - mean)
    return torch.stack(losses).mean()


def augment(clouds: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Scale and translate cloud by cloud, with random numbers of NumPy."""
    moved = clouds.clone()
    for cloud in moved:
        scale = np.random.uniform(2 / 3, 3 / 2, 3).astype("float32")  # noqa: NPY002
        shift = np.random.uniform(-0.2, 0.2, 3).astype("float32")  # noqa: NPY002
        cloud.mul_(torch.from_numpy(scale).to(clouds.device))
        cloud.add_(torch.from_numpy(shift).to(clouds.device))
    return moved


def prepare_modelnet_shape(path: Path, count: int) -> Int[np.ndarray, " count"]:
    """Read a text file of points and sample by NumPy, as the released code prepares ModelNet."""
    points = np.loadtxt(path, delimiter=",").astype(np.float32)[:, :3]
    selected, nearest = np.zeros(count, np.int64), np.full(len(points), 1e10)
    for i in range(1, count):
        distance = ((points - points[selected[i - 1]]) ** 2).sum(-1)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        selected[i] = nearest.argmax()
    return selected


def _group_points(self: PatchGrouper, points: Float[Tensor, "b n 3"]) -> Patches:
    centers = gather_rows(points, farthest_point_sample(points, self.groups))
    members = gather_rows(points, knn_torch(centers, points, self.group_size))
    return Patches(members - centers.unsqueeze(2), centers)


def _conv(layer: nn.Linear, x: Float[Tensor, "b c n"]) -> Float[Tensor, "b d n"]:
    return F.conv1d(x, layer.weight.unsqueeze(-1), layer.bias)


def embed_patches(
    self: PatchEmbed, patches: Float[Tensor, "b g k 3"], visible: Int[Tensor, "b v"] | None = None
) -> Float[Tensor, "b v d"]:
    """Embed patches by convolutions; a patch's maximum is concatenated to each of its points."""
    b, g, k, _ = patches.shape
    x = patches.reshape(b * g, k, 3).transpose(1, 2)
    x = _conv(self.point_out, self.point_norm(_conv(self.point_in, x)).relu())
    x = torch.cat([x.amax(2, keepdim=True).expand(-1, -1, k), x], 1)
    x = _conv(self.joint_out, self.joint_norm(_conv(self.joint_in, x)).relu())
    tokens = x.amax(2).view(b, g, -1)
    return tokens if visible is None else gather_rows(tokens, visible)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return rearrange(weights @ v, "b h n d -> b n (h d)")


def _self_attention(self: SelfAttention, tokens: Tensor) -> Tensor:
    q, k, v = self.qkv(tokens).chunk(3, -1)
    return self.proj(_attend(q, k, v, self.heads))


def _transformer_block(self: Block, x: Tensor, num_last: int | None = None) -> Tensor:
    x = x + self.drop_path(self.attn(self.norm1(x)))
    x = x + self.drop_path(self.mlp(self.norm2(x)))
    return x if num_last is None else x[:, -num_last:]


def _cross_attention(self: CrossAttention, queries: Tensor, tokens: Tensor) -> Tensor:
    k, v = self.kv(tokens).chunk(2, -1)
    return self.proj(_attend(self.q(queries), k, v, self.heads))


def _propagate(
    self: FeaturePropagation, tokens: Tensor, centers: Tensor, channels: Tensor
) -> Tensor:
    nearest = three_nn(channels[..., :3], centers)
    interpolated = (gather_rows(tokens, nearest.indices) * nearest.weight.unsqueeze(-1)).sum(2)
    x = torch.cat([channels, interpolated], -1).transpose(1, 2)
    x = self.joint_norm(_conv(self.joint_in, x)).relu()
    return self.out_norm(_conv(self.out, x)).relu().transpose(1, 2)


def _score_points(self: PointHead, points: Tensor, cloud: Tensor) -> Tensor:
    shared = cloud.unsqueeze(1).expand(-1, points.shape[1], -1)
    x = torch.cat([points, shared], -1).transpose(1, 2)
    x = self.dropout(self.joint_norm(_conv(self.joint_in, x)).relu())
    x = self.middle_norm(_conv(self.middle, x)).relu()
    return _conv(self.out, x).transpose(1, 2)


Network = TypeVar("Network", bound=nn.Module)
REFERENCE_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    PatchGrouper: _group_points,
    PatchEmbed: embed_patches,
    Block: _transformer_block,
    SelfAttention: _self_attention,
    CrossAttention: _cross_attention,
    FeaturePropagation: _propagate,
    PointHead: _score_points,
}


def make_reference(network: Network) -> Network:
    """Return a copy of a network that computes everything by its reference implementation."""
    copy = deepcopy(network)
    for module in copy.modules():
        if type(module) in REFERENCE_FORWARDS:
            module.forward = MethodType(REFERENCE_FORWARDS[type(module)], module)
    return copy
