import pytest
import torch
from torch.testing import assert_close

from recon.ops.native import library
from recon.ops.pooling import by_definition, linear_max


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.skipif(library() is None, reason="no C compiler: there is only the definition")
def test_gradients_equal_those_of_the_definition(threads: int) -> None:
    x, weight, bias = torch.randn(7, 24, 9), torch.randn(13, 24), torch.randn(13)
    weight[3] = weight[2]
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    scale = torch.randn(7, 13)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    ours = linear_max(x, weight, bias)
    theirs = by_definition(x, weight, bias)
    assert torch.equal(ours, theirs)
    found = torch.autograd.grad((ours * scale).sum(), inputs)
    expected = torch.autograd.grad((theirs * scale).sum(), inputs)
    torch.set_num_threads(before)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(library() is None, reason="no C compiler: there is only the definition")
def test_the_sparse_gradient_is_used_on_a_cpu_in_float32_alone() -> None:
    x, weight, bias = torch.randn(2, 8, 3, requires_grad=True), torch.randn(4, 8), torch.randn(4)
    assert "Sparse" in type(linear_max(x, weight, bias).grad_fn).__name__
    wide = linear_max(x.double(), weight.double(), bias.double())
    assert "Sparse" not in type(wide.grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_max(x, weight, bias).dtype == torch.bfloat16


def test_a_nan_in_the_gradient_is_not_lost() -> None:
    x, weight = torch.randn(2, 8, 3, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    (linear_max(x, weight, torch.zeros(4)) * torch.tensor([1, torch.nan, 1, 1])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isnan().any(1).tolist() == [False, True, False, False]
