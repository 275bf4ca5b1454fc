"""The pointwise linear layer against F.linear."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.testing import assert_close

from recon.ops import linear
from recon.ops.linear import pointwise_linear


def make_inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    x, wide, bias = torch.randn(3, 40, 7), torch.randn(5, 9), torch.randn(5)
    # The weight is a slice of a wider one, as where points and clouds share a layer.
    return [tensor.to(dtype).requires_grad_() for tensor in (x, wide, bias)]


@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_match_linear(biased: bool) -> None:
    assert linear._uses_onednn(torch.zeros(1)) == torch.backends.mkldnn.is_available()
    results = []
    for layer in (F.linear, pointwise_linear):
        torch.manual_seed(0)
        x, wide, bias = make_inputs()
        y = layer(x, wide[:, 1:8], bias if biased else None)
        y.square().sum().backward()
        results.append([y.detach(), *(tensor.grad for tensor in (x, wide, bias)[: 2 + biased])])
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_other_dtypes_are_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "to_mkldnn", lambda self: pytest.fail("oneDNN was called"))
    for dtype in (torch.float64, torch.bfloat16):
        x, wide, bias = make_inputs(dtype)
        assert pointwise_linear(x, wide[:, :7], bias).dtype == dtype
    x, wide, bias = make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        assert pointwise_linear(x, wide[:, :7], bias).dtype == torch.bfloat16
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert pointwise_linear(x, wide[:, :7], bias).shape == (3, 40, 5)
