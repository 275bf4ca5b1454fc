from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recon.layers.batch_norm import batch_norm_affine


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_by_statistics_is_the_norm_in_training_with_its_gradients(
    momentum: float | None,
) -> None:
    norm = nn.BatchNorm1d(5, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    other, x = deepcopy(norm), torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    scale, shift = batch_norm_affine(norm, x.mean(0), x.var(0, correction=0), len(x))
    ours, theirs = x * scale + shift, other(x)
    assert_close(ours, theirs)
    for a, b in zip(norm.buffers(), other.buffers(), strict=True):
        assert_close(a, b)
    weight = torch.randn(20, 5, dtype=torch.float64)
    found = torch.autograd.grad((ours * weight).sum(), [x, *norm.parameters()])
    expected = torch.autograd.grad((theirs * weight).sum(), [x, *other.parameters()])
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


def test_a_variance_below_zero_by_rounding_counts_as_none() -> None:
    norm = nn.BatchNorm1d(1)
    scale, _ = batch_norm_affine(norm, torch.zeros(1), torch.tensor([-1e-4]), 10)
    assert_close(scale, torch.tensor([norm.eps**-0.5]))
