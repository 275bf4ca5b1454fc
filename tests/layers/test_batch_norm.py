from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recon.layers.batch_norm import batch_norm_affine


@pytest.mark.parametrize("momentum", [0.1, None])
def test_affine_matches_batch_norm_in_training(
    momentum: float | None,
) -> None:
    norm = nn.BatchNorm1d(5, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference, x = deepcopy(norm), torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    scale, shift = batch_norm_affine(norm, x.mean(0), x.var(0, correction=0), len(x))
    actual, expected = x * scale + shift, reference(x)
    assert_close(actual, expected)
    for a, b in zip(norm.buffers(), reference.buffers(), strict=True):
        assert_close(a, b)
    weight = torch.randn(20, 5, dtype=torch.float64)
    grads = torch.autograd.grad((actual * weight).sum(), [x, *norm.parameters()])
    expected_grads = torch.autograd.grad((expected * weight).sum(), [x, *reference.parameters()])
    for a, b in zip(grads, expected_grads, strict=True):
        assert_close(a, b)


def test_negative_variance_is_clamped_to_zero() -> None:
    norm = nn.BatchNorm1d(1)
    scale, _ = batch_norm_affine(norm, torch.zeros(1), torch.tensor([-1e-4]), 10)
    assert_close(scale, torch.tensor([norm.eps**-0.5]))
