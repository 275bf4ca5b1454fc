"""Patch tokens to features of all points."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.interpolation import three_interpolate, three_nn
from recon.ops.linear import pointwise_linear


class FeaturePropagation(nn.Module):
    """Carry patch tokens to all points, beside each point's own channels, through a small MLP [1].

    Shapes: tokens (B, G, dim) at centers (B, G, 3), channels (B, N, C) whose first three are the
    coordinates -> (B, N, width). In training, batch statistics are taken over all points.

    The first layer and the interpolation are both linear: the layer is applied to the G tokens
    before they are carried to the N points, which is the same up to rounding.

    [1] Qi et al., PointNet++, arXiv:1706.02413, section 3.4.
    """

    def __init__(self, dim: int, *, channels: int = 3, hidden: int, width: int = 1024) -> None:
        super().__init__()
        # Columns of `joint_in`: first the point's own channels, then the tokens' features.
        self.joint_in, self.joint_norm = nn.Linear(channels + dim, hidden), nn.BatchNorm1d(hidden)
        self.out, self.out_norm = nn.Linear(hidden, width), nn.BatchNorm1d(width)
        self.channels = channels

    def forward(
        self,
        tokens: Float[Tensor, "b g d"],
        centers: Float[Tensor, "b g 3"],
        channels: Float[Tensor, "b n c"],
    ) -> Float[Tensor, "b n w"]:
        own, carried = self.joint_in.weight.split([self.channels, tokens.shape[-1]], dim=1)
        near = three_nn(channels[..., :3], centers)
        x = three_interpolate(F.linear(tokens, carried, self.joint_in.bias), near)
        # What is carried is a view: changed in place, its gradient would be copied three times.
        x = batch_norm_relu(_few_channels(channels, own).add_(x), self.joint_norm)
        return batch_norm_relu(pointwise_linear(x, self.out.weight, self.out.bias), self.out_norm)


MIN_CHANNELS = 16


def _few_channels(
    channels: Float[Tensor, "b n c"], weight: Float[Tensor, "d c"]
) -> Float[Tensor, "b n d"]:
    """Apply a linear layer to a few channels, with zeros beside them.

    The gradient of so narrow a weight takes a CPU's matrix product twice the time otherwise.
    """
    zeros = (0, max(0, MIN_CHANNELS - channels.shape[-1]))
    return F.linear(F.pad(channels, zeros), F.pad(weight, zeros))


def batch_norm_relu(x: Float[Tensor, "b n c"], norm: nn.BatchNorm1d) -> Float[Tensor, "b n c"]:
    """Normalise by statistics over all points of a batch, and rectify."""
    return F.relu(norm(x.flatten(0, 1)), inplace=True).view_as(x)


def max_mean_pool(tokens: Float[Tensor, "b g d"]) -> Float[Tensor, "b e"]:
    """Return the maximum over the patches, then the mean, (B, 2 dim)."""
    return torch.cat([tokens.amax(1), tokens.mean(1)], -1)
