"""Linear layer and a maximum over each patch's points, with a sparse gradient on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recon.ops.native import MAX_PATCH_POINTS, is_supported, linear_max_backward, max_over_points


def linear_max(
    x: Float[Tensor, "p k d"],
    weight: Float[Tensor, "c d"],
    bias: Float[Tensor, " c"],
    *,
    rectify: bool = False,
) -> Float[Tensor, "p c"]:
    """Return the maximum over K points of a linear layer; (P, K, D) -> (P, C).

    With `rectify`, the layer is applied to ReLU(x), and x may be overwritten. Only one point per
    channel has a gradient: on a CPU with a C compiler, the zero gradients of the other points are
    skipped.
    """
    if (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and _supports_sparse_gradient(x, weight)
    ):
        return _SparseLinearMax.apply(x, weight, bias, rectify)
    return linear_max_torch(x, weight, bias, rectify=rectify)


def _supports_sparse_gradient(x: Tensor, weight: Tensor) -> bool:
    """Return whether the library handles the input, the weight and, under autocast, the product."""
    has_few_points, dtypes = x.shape[1] <= MAX_PATCH_POINTS, (torch.float32, torch.bfloat16)
    product_dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return (
        has_few_points
        and product_dtype in dtypes
        and is_supported(x, *dtypes)
        and is_supported(weight)
    )


def linear_max_torch(
    x: Float[Tensor, "p k d"],
    weight: Float[Tensor, "c d"],
    bias: Float[Tensor, " c"],
    *,
    rectify: bool = False,
) -> Float[Tensor, "p c"]:
    """Compute `linear_max` with plain torch operations and autograd."""
    return F.linear(F.relu(x, inplace=True) if rectify else x, weight, bias).max(1).values


class _SparseLinearMax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rectify: bool) -> Tensor:
        x = x.relu_() if rectify else x
        maximum, argmax = max_over_points(F.linear(x, weight, bias))
        ctx.save_for_backward(x, weight, argmax)
        ctx.rectified = rectify
        return maximum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, argmax = ctx.saved_tensors
        grad = grad.float()
        grad_x, grad_weight = linear_max_backward(x, weight, grad, argmax, rectified=ctx.rectified)
        return grad_x, grad_weight, grad.sum(0), None
