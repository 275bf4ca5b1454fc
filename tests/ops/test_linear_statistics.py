import pytest
import torch
from torch.testing import assert_close

from recon.ops.linear_statistics import gram_matrix, linear_output_variance


def test_gram_matrix_and_gradient_equal_the_product() -> None:
    x = torch.randn(130, 7, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(7, 7, dtype=torch.float64)
    assert_close(gram_matrix(x), x.mT @ x)
    grad, expected_grad = (
        torch.autograd.grad((g * scale).sum(), x)[0] for g in (gram_matrix(x), x.mT @ x)
    )
    assert_close(grad, expected_grad)


def test_bfloat16_gram_matrix_is_accurate() -> None:
    x = torch.rand(4000, 16).bfloat16()
    exact = x.double().mT @ x.double()
    gram = gram_matrix(x)
    assert gram.dtype == torch.float32
    assert ((gram - exact) / exact).abs().max() < 1e-3
    short = torch.rand(70, 16).bfloat16()
    assert_close(gram_matrix(short).double(), short.double().mT @ short.double(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gram_matrix_is_the_same_when_compiling(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (30 + torch.randn(200, 7)).to(dtype)  # the sums overflow float16
    gram = gram_matrix(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(gram_matrix(x), gram)
    assert_close(gram.double(), x.double().mT @ x.double(), rtol=1e-2, atol=0)


def test_output_variance_follows_from_the_input_covariance() -> None:
    x, weight = torch.randn(50, 6).double() @ torch.randn(6, 6).double(), torch.randn(4, 6).double()
    assert_close(
        linear_output_variance(weight, x.mT.cov(correction=0)), (x @ weight.mT).var(0, correction=0)
    )
