"""Batch norms whose statistics are known before the values that they normalise."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Affine(NamedTuple):
    """What a batch norm does to each channel: x scale + shift."""

    scale: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]


def by_statistics(
    norm: nn.BatchNorm1d,
    mean: Float[Tensor, " c"],
    variance: Float[Tensor, " c"],
    count: int,
) -> Affine:
    """Return what a batch norm in training does to values of this mean and biased variance.

    `count` is how many values each channel has, 2 at least. The running statistics move as
    they do there. Gradients reach the statistics.
    """
    variance = variance.clamp_min(0)  # of channels that are constant, up to rounding
    assert norm.momentum is not None
    with torch.no_grad():
        norm.get_buffer("num_batches_tracked").add_(1)
        norm.get_buffer("running_mean").lerp_(mean, norm.momentum)
        unbiased = variance * (count / (count - 1))
        norm.get_buffer("running_var").lerp_(unbiased, norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return Affine(scale, norm.bias - mean * scale)
