"""Batch norm from given statistics, and batch norm synchronized over processes on any device."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.distributed import all_reduce_with_grad, rank_and_world_size


class Affine(NamedTuple):
    """A batch norm as a function of each channel: x * scale + shift."""

    scale: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]


def batch_norm_affine(
    norm: nn.BatchNorm1d,
    mean: Float[Tensor, " c"],
    variance: Float[Tensor, " c"],
    count: int,
) -> Affine:
    """Return a training batch norm as scale and shift, from the mean and the biased variance.

    `count` is the number of values per channel, at least 2. The running statistics are updated as
    in the batch norm itself. Gradients flow into the mean and the variance.
    """
    variance = variance.clamp_min(0)  # rounding can make it negative for constant channels
    with torch.no_grad():
        num_batches = norm.get_buffer("num_batches_tracked").add_(1)
        momentum = 1 / float(num_batches) if norm.momentum is None else norm.momentum
        norm.get_buffer("running_mean").lerp_(mean, momentum)
        norm.get_buffer("running_var").lerp_(variance * (count / (count - 1)), momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return Affine(scale, norm.bias - mean * scale)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm with training statistics over all processes, on any device.

    Shapes: (B, C) -> (B, C), B is the local batch size. Gradients equal those of one process with
    all rows. `torch.nn.SyncBatchNorm` does the same on GPUs only. Every process must call it.
    """

    def forward(self, input: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        if not self.training or rank_and_world_size()[1] == 1:
            return super().forward(input)
        x = input.to(self.weight.dtype)
        count = int(all_reduce_with_grad(x.new_tensor(len(x), dtype=torch.double)))
        mean = all_reduce_with_grad(x.sum(0)) / count
        variance = all_reduce_with_grad((x - mean).square().sum(0)) / count
        scale, shift = batch_norm_affine(self, mean, variance, count)
        return (x * scale + shift).to(input.dtype)
