"""Propagate patch tokens to point features, as in PointNet++."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.interpolation import three_interpolate, three_nn
from recon.ops.linear import pointwise_linear

MIN_CHANNELS = 16
"""Minimum number of input channels of a linear layer on points; fewer are padded with zeros."""


class FeaturePropagation(nn.Module):
    """Upsample patch tokens to all points by 3-NN interpolation, then apply a small MLP [1].

    The MLP reads the interpolated tokens and each point's own channels. Shapes: tokens (B, G, dim)
    at centers (B, G, 3), channels (B, N, C), of which the first three are the coordinates ->
    (B, N, width). In training, batch statistics are taken over all points.

    The first layer and the interpolation are both linear. The layer is therefore applied to the G
    tokens before they are interpolated at the N points; the result is the same up to rounding.

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
        channel_weight, token_weight = self.joint_in.weight.split(
            [self.channels, tokens.shape[-1]], dim=1
        )
        nearest = three_nn(channels[..., :3], centers)
        x = three_interpolate(F.linear(tokens, token_weight, self.joint_in.bias), nearest)
        # Interpolation returns a view: updated in place, its gradient would be copied three times.
        x = batch_norm_relu(_linear_padded(channels, channel_weight).add_(x), self.joint_norm)
        return batch_norm_relu(pointwise_linear(x, self.out.weight, self.out.bias), self.out_norm)


def _linear_padded(
    channels: Float[Tensor, "b n c"], weight: Float[Tensor, "d c"]
) -> Float[Tensor, "b n d"]:
    """Apply a linear layer to few channels, padded with zeros.

    Without padding, the gradient of such a narrow weight takes a CPU twice as long.
    """
    padding = (0, max(0, MIN_CHANNELS - channels.shape[-1]))
    return F.linear(F.pad(channels, padding), F.pad(weight, padding))


def batch_norm_relu(x: Float[Tensor, "b n c"], norm: nn.BatchNorm1d) -> Float[Tensor, "b n c"]:
    """Apply batch norm with statistics over all points of a batch, then ReLU."""
    return F.relu(norm(x.flatten(0, 1)), inplace=True).view_as(x)


def max_mean_pool(tokens: Float[Tensor, "b g d"]) -> Float[Tensor, "b e"]:
    """Concatenate the maximum and the mean over the patches; (B, G, dim) -> (B, 2 dim)."""
    return torch.cat([tokens.amax(1), tokens.mean(1)], -1)
