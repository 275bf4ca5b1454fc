"""Gram matrices, and a linear layer's output variances from its input covariance."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NUM_GRAM_BLOCKS = 64
"""Number of partial sums of a bfloat16 Gram matrix, so that their rounding errors average out."""


def gram_matrix(x: Float[Tensor, "n c"]) -> Float[Tensor, "c c"]:
    """Return x^T x in float32 or wider; (N, C) -> (C, C).

    The gradient takes one matrix product instead of autograd's two, since the result is symmetric.
    """
    return _compute_gram(x) if torch.compiler.is_compiling() else _Gram.apply(x)


def _compute_gram(x: Tensor) -> Tensor:
    if x.dtype != torch.bfloat16:
        upcast = x.to(torch.promote_types(x.dtype, torch.float32))
        return upcast.mT @ upcast
    count = len(x) // NUM_GRAM_BLOCKS * NUM_GRAM_BLOCKS
    blocks, remainder = x[:count].unflatten(0, (NUM_GRAM_BLOCKS, -1)), x[count:].float()
    return (blocks.mT @ blocks).sum(0, dtype=torch.float32) + remainder.mT @ remainder


class _Gram(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _compute_gram(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x @ (grad + grad.mT).to(x.dtype)


def linear_output_variance(
    weight: Float[Tensor, "d c"], covariance: Float[Tensor, "c c"]
) -> Float[Tensor, " d"]:
    """Return the variances of W x from the covariance of x; (D, C), (C, C) -> (D,)."""
    return ((weight @ covariance) * weight).sum(1)
