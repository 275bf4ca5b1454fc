import pytest
import torch
from torch.testing import assert_close

from conftest import assert_near, released_arrays
from recon.ops.chamfer import chamfer_l1, chamfer_l2


def nearest_distances(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    distances = (x.unsqueeze(2) - y.unsqueeze(1)).norm(dim=-1)
    return distances.amin(2), distances.amin(1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 7), (32, 32)])
def test_chamfer_equals_its_definition(n: int, m: int) -> None:
    x, y = torch.randn(2, n, 3), torch.randn(2, m, 3)
    forward, backward = nearest_distances(x, y)
    assert_close(chamfer_l2(x, y), forward.square().mean(1) + backward.square().mean(1))
    assert_close(chamfer_l1(x, y), (forward.mean(1) + backward.mean(1)) / 2)


@pytest.mark.parametrize(("function", "name"), [(chamfer_l2, "cd_l2"), (chamfer_l1, "cd_l1")])
def test_value_and_gradient_match_the_released_code(function: object, name: str) -> None:
    arrays = released_arrays("ops_misc.npz")
    x = arrays("cd_a").requires_grad_()
    loss = function(x, arrays("cd_b")).mean()  # type: ignore[operator]
    loss.backward()
    assert_near(loss.detach(), arrays(name))
    assert_near(x.grad, arrays(f"{name}_grad"))


@pytest.mark.parametrize("function", [chamfer_l2, chamfer_l1])
def test_chamfer_is_symmetric_and_zero_between_equal_sets(function: object) -> None:
    x, y = torch.randn(2, 6, 3), torch.randn(2, 9, 3)
    assert_close(function(x, y), function(y, x))  # type: ignore[operator]
    assert_close(function(x, x.flip(1)), torch.zeros(2))  # type: ignore[operator]


@pytest.mark.parametrize("function", [chamfer_l2, chamfer_l1])
def test_gradient_is_zero_where_points_coincide(function: object) -> None:
    x = torch.randn(1, 5, 3, requires_grad=True)
    function(x, x.detach().clone()).sum().backward()  # type: ignore[operator]
    assert torch.equal(x.grad, torch.zeros_like(x))
