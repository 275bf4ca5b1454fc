import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recon.ops.native import MAX_PATCH_POINTS, load_library, max_over_points
from recon.ops.pooling import linear_max, linear_max_torch

compiled = pytest.mark.skipif(load_library() is None, reason="no C compiler: torch is used")


@compiled
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("width", [24, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_match_torch(threads: int, width: int, rectify: bool) -> None:
    x, weight, bias = torch.randn(7, 9, width), torch.randn(150, width), torch.randn(150)
    weight[3] = weight[2]
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    scale = torch.randn(7, 150)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    result = linear_max(x * 1, weight, bias, rectify=rectify)
    expected = linear_max_torch(x * 1, weight, bias, rectify=rectify)
    assert torch.equal(result, expected)
    grads = torch.autograd.grad((result * scale).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * scale).sum(), inputs)
    torch.set_num_threads(before)
    for a, b in zip(grads, expected_grads, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-4)


@compiled
def test_bfloat16_gradients_match_torch() -> None:
    x, weight, bias = torch.randn(40, 8, 32), torch.randn(16, 32), torch.randn(16)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    scale = torch.randn(40, 16)

    def gradients(pooled: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((pooled.float() * scale).sum(), inputs)

    with torch.autocast("cpu", torch.bfloat16):
        result = linear_max(x.bfloat16(), weight, bias)
        expected = linear_max_torch(x.bfloat16(), weight, bias)
    assert "Sparse" in type(result.grad_fn).__name__
    assert torch.equal(result, expected)
    for a, b in zip(gradients(result), gradients(expected), strict=True):
        assert_close(a, b, rtol=2e-2, atol=2e-2 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_sets_the_dtype_of_the_maxima(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(40, 8, 32, requires_grad=True), torch.randn(9, 32), torch.ones(9)
    with torch.autocast("cpu", dtype):
        result, expected = (pool(x, weight, bias) for pool in (linear_max, linear_max_torch))
    assert result.dtype == dtype
    assert torch.equal(result, expected)
    grads, expected_grads = (torch.autograd.grad(y.float().sum(), x)[0] for y in (result, expected))
    assert_close(grads, expected_grads, rtol=2e-2, atol=2e-2)


@compiled
def test_sparse_gradient_is_used_for_supported_inputs() -> None:
    x, weight, bias = torch.randn(2, 3, 8, requires_grad=True), torch.randn(4, 8), torch.randn(4)
    assert "Sparse" in type(linear_max(x, weight, bias).grad_fn).__name__
    wide = linear_max(x.double(), weight.double(), bias.double())
    assert "Sparse" not in type(wide.grad_fn).__name__
    for points in (MAX_PATCH_POINTS, MAX_PATCH_POINTS + 1):
        many = linear_max(torch.randn(1, points, 8, requires_grad=True), weight, bias)
        assert ("Sparse" in type(many.grad_fn).__name__) == (points == MAX_PATCH_POINTS)


def test_nan_gradients_are_propagated() -> None:
    x, weight = torch.randn(2, 3, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    (linear_max(x, weight, torch.zeros(4)) * torch.tensor([1, torch.nan, 1, 1])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isnan().any(1).tolist() == [False, True, False, False]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_max_over_points_matches_torch(dtype: torch.dtype) -> None:
    x = torch.randn(5, 9, 200).to(dtype)
    x[1, 4, 7] = torch.nan
    x[2, 3, 130] = torch.inf
    maximum, argmax = max_over_points(x)
    expected = x.max(1)
    assert torch.equal(maximum.nan_to_num(7), expected.values.nan_to_num(7))
    assert int(argmax[1, 7]) == 4
    assert torch.equal(
        x.gather(1, argmax.long().unsqueeze(1))[:, 0].nan_to_num(7), maximum.nan_to_num(7)
    )
