"""Maxima over the points of a patch."""

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

    With `rectify` of ReLU(x), for which x may be overwritten. Its gradient comes from one point a
    channel only: where the machine has a compiler, a CPU does not multiply the others' zeros.
    """
    if not torch.compiler.is_compiling() and torch.is_grad_enabled() and _sparse(x, weight):
        return _SparseLinearMax.apply(x, weight, bias, rectify)
    return linear_max_torch(x, weight, bias, rectify=rectify)


def _sparse(x: Tensor, weight: Tensor) -> bool:
    """Return whether the library takes both the factors and the product, by autocast's dtype."""
    few, taken = x.shape[1] <= MAX_PATCH_POINTS, (torch.float32, torch.bfloat16)
    product = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return few and product in taken and is_supported(x, *taken) and is_supported(weight)


def linear_max_torch(
    x: Float[Tensor, "p k d"],
    weight: Float[Tensor, "c d"],
    bias: Float[Tensor, " c"],
    *,
    rectify: bool = False,
) -> Float[Tensor, "p c"]:
    """Compute `linear_max` as it is written, its gradient too."""
    return F.linear(F.relu(x, inplace=True) if rectify else x, weight, bias).max(1).values


class _SparseLinearMax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rectify: bool) -> Tensor:
        x = x.relu_() if rectify else x
        largest, at = max_over_points(F.linear(x, weight, bias))
        ctx.save_for_backward(x, weight, at)
        ctx.rectified = rectify
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, at = ctx.saved_tensors
        grad = grad.float()
        of_x, of_weight = linear_max_backward(x, weight, grad, at, rectified=ctx.rectified)
        return of_x, of_weight, grad.sum(0), None
