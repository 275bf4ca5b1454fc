import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recon.ops.native import MAX_PATCH_POINTS, load_library, max_over_points
from recon.ops.pooling import linear_max, linear_max_torch

compiled = pytest.mark.skipif(load_library() is None, reason="no C compiler: only the definition")


@compiled
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("width", [24, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_equal_those_of_the_definition(threads: int, width: int, rectify: bool) -> None:
    x, weight, bias = torch.randn(7, 9, width), torch.randn(150, width), torch.randn(150)
    weight[3] = weight[2]
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    scale = torch.randn(7, 150)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    ours = linear_max(x * 1, weight, bias, rectify=rectify)
    theirs = linear_max_torch(x * 1, weight, bias, rectify=rectify)
    assert torch.equal(ours, theirs)
    found = torch.autograd.grad((ours * scale).sum(), inputs)
    expected = torch.autograd.grad((theirs * scale).sum(), inputs)
    torch.set_num_threads(before)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-4)


@compiled
def test_in_bfloat16_gradients_equal_the_definitions_to_its_rounding() -> None:
    x, weight, bias = torch.randn(40, 8, 32), torch.randn(16, 32), torch.randn(16)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    scale = torch.randn(40, 16)

    def gradients(pooled: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((pooled.float() * scale).sum(), inputs)

    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_max(x.bfloat16(), weight, bias)
        theirs = linear_max_torch(x.bfloat16(), weight, bias)
    assert "Sparse" in type(ours.grad_fn).__name__
    assert torch.equal(ours, theirs)
    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        assert_close(a, b, rtol=2e-2, atol=2e-2 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_decides_the_dtype_of_the_maxima(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(40, 8, 32, requires_grad=True), torch.randn(9, 32), torch.ones(9)
    with torch.autocast("cpu", dtype):
        ours, theirs = (pool(x, weight, bias) for pool in (linear_max, linear_max_torch))
    assert ours.dtype == dtype
    assert torch.equal(ours, theirs)
    found, expected = (torch.autograd.grad(y.float().sum(), x)[0] for y in (ours, theirs))
    assert_close(found, expected, rtol=2e-2, atol=2e-2)


@compiled
def test_the_sparse_gradient_is_used_where_the_library_can() -> None:
    x, weight, bias = torch.randn(2, 3, 8, requires_grad=True), torch.randn(4, 8), torch.randn(4)
    assert "Sparse" in type(linear_max(x, weight, bias).grad_fn).__name__
    wide = linear_max(x.double(), weight.double(), bias.double())
    assert "Sparse" not in type(wide.grad_fn).__name__
    for points in (MAX_PATCH_POINTS, MAX_PATCH_POINTS + 1):
        many = linear_max(torch.randn(1, points, 8, requires_grad=True), weight, bias)
        assert ("Sparse" in type(many.grad_fn).__name__) == (points == MAX_PATCH_POINTS)


def test_a_nan_in_the_gradient_is_not_lost() -> None:
    x, weight = torch.randn(2, 3, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    (linear_max(x, weight, torch.zeros(4)) * torch.tensor([1, torch.nan, 1, 1])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isnan().any(1).tolist() == [False, True, False, False]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maxima_over_points_are_torchs_with_their_place_and_nan(dtype: torch.dtype) -> None:
    x = torch.randn(5, 9, 200).to(dtype)
    x[1, 4, 7] = torch.nan
    x[2, 3, 130] = torch.inf
    largest, at = max_over_points(x)
    expected = x.max(1)
    assert torch.equal(largest.nan_to_num(7), expected.values.nan_to_num(7))
    assert int(at[1, 7]) == 4
    assert torch.equal(
        x.gather(1, at.long().unsqueeze(1))[:, 0].nan_to_num(7), largest.nan_to_num(7)
    )
