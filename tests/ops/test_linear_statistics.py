import pytest
import torch
from torch.testing import assert_close

from recon.ops.linear_statistics import gram_matrix, linear_output_variance


def test_a_gram_matrix_and_its_gradient_are_those_of_the_product() -> None:
    x = torch.randn(130, 7, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(7, 7, dtype=torch.float64)
    assert_close(gram_matrix(x), x.mT @ x)
    ours, theirs = (
        torch.autograd.grad((g * scale).sum(), x)[0] for g in (gram_matrix(x), x.mT @ x)
    )
    assert_close(ours, theirs)


def test_in_bfloat16_it_keeps_more_digits_than_one_product() -> None:
    x = torch.rand(4000, 16).bfloat16()
    exact = x.double().mT @ x.double()
    ours = gram_matrix(x)
    assert ours.dtype == torch.float32
    assert ((ours - exact) / exact).abs().max() < 1e-3
    few = torch.rand(70, 16).bfloat16()
    assert_close(gram_matrix(few).double(), few.double().mT @ few.double(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_compiled_program_computes_the_same(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (30 + torch.randn(200, 7)).to(dtype)  # float16 has no numbers as large as its sums
    plain = gram_matrix(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(gram_matrix(x), plain)
    assert_close(plain.double(), x.double().mT @ x.double(), rtol=1e-2, atol=0)


def test_the_variance_of_a_linear_layer_follows_from_its_inputs() -> None:
    x, weight = torch.randn(50, 6).double() @ torch.randn(6, 6).double(), torch.randn(4, 6).double()
    assert_close(
        linear_output_variance(weight, x.mT.cov(correction=0)), (x @ weight.mT).var(0, correction=0)
    )
