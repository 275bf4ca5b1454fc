"""Maxima over the points of a patch."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recon.ops.native import library, linear_max_gradients, usable


def linear_max(
    x: Float[Tensor, "p d k"], weight: Float[Tensor, "c d"], bias: Float[Tensor, " c"]
) -> Float[Tensor, "p c"]:
    """Return the maximum over K points of a linear layer; (P, D, K) -> (P, C).

    Its gradient comes from one point a channel only: where the machine has a compiler, float32 on
    a CPU does not multiply the others' zeros.
    """
    sparse = usable(x) and not torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    if sparse and not torch.compiler.is_compiling() and library() is not None:
        return _SparseLinearMax.apply(x, weight, bias)
    return by_definition(x, weight, bias)


def by_definition(
    x: Float[Tensor, "p d k"], weight: Float[Tensor, "c d"], bias: Float[Tensor, " c"]
) -> Float[Tensor, "p c"]:
    """Compute `linear_max` as it is written, its gradient too."""
    return F.conv1d(x, weight.unsqueeze(2), bias).max(2).values


class _SparseLinearMax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        largest, at = F.conv1d(x, weight.unsqueeze(2), bias).max(2)
        ctx.save_for_backward(x, weight, at)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, at = ctx.saved_tensors
        found = linear_max_gradients(x, weight, grad, at)
        if found is None:
            raise MemoryError(f"no memory for the gradients of {tuple(x.shape)} points")
        return *found, grad.sum(0)
