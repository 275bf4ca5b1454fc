"""Batch norms by statistics that come from elsewhere: from a layer's inputs, from all processes."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.distributed import all_reduce_with_grad, rank_and_world_size


class Affine(NamedTuple):
    """What a batch norm does to each channel: x scale + shift."""

    scale: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]


def batch_norm_affine(
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
    with torch.no_grad():
        batches = norm.get_buffer("num_batches_tracked").add_(1)
        moved = 1 / float(batches) if norm.momentum is None else norm.momentum
        norm.get_buffer("running_mean").lerp_(mean, moved)
        norm.get_buffer("running_var").lerp_(variance * (count / (count - 1)), moved)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return Affine(scale, norm.bias - mean * scale)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose statistics in training are those of all processes, on any device.

    Shapes: (B, C) -> (B, C), B each process's own; gradients are those of one process with all
    rows. `torch.nn.SyncBatchNorm` is the same for GPUs alone. Every process must call it.
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
