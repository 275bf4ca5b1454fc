"""Statistics of what a linear layer gives, from those of what it is given."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NUM_GRAM_BLOCKS = 64
"""Into how many sums a Gram matrix of bfloat16 is parted, so that their rounding evens out."""


def gram_matrix(x: Float[Tensor, "n c"]) -> Float[Tensor, "c c"]:
    """Return x^T x; (N, C) -> (C, C), at least float32.

    It is symmetric, and its gradient one product where autograd's has two.
    """
    return _product(x) if torch.compiler.is_compiling() else _Gram.apply(x)


def _product(x: Tensor) -> Tensor:
    if x.dtype != torch.bfloat16:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide.mT @ wide
    count = len(x) // NUM_GRAM_BLOCKS * NUM_GRAM_BLOCKS
    blocks, rest = x[:count].unflatten(0, (NUM_GRAM_BLOCKS, -1)), x[count:].float()
    return (blocks.mT @ blocks).sum(0, dtype=torch.float32) + rest.mT @ rest


class _Gram(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _product(x)

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
