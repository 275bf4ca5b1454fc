"""Three-nearest-neighbor interpolation against its definition."""

import torch

from recon.ops.interpolation import EPSILON, three_interpolate, three_nn


def interpolate_reference(
    values: torch.Tensor, points: torch.Tensor, centers: torch.Tensor
) -> torch.Tensor:
    """Loop over clouds and points, like the formula."""
    out = torch.zeros(len(points), points.shape[1], values.shape[-1])
    for b, cloud in enumerate(points):
        for n, point in enumerate(cloud):
            distances = (centers[b] - point).square().sum(-1)
            nearest = distances.argsort()[:3]
            inverse = 1 / (distances[nearest] + EPSILON)
            out[b, n] = (values[b, nearest] * (inverse / inverse.sum())[:, None]).sum(0)
    return out


def test_values_and_gradients_equal_the_definition() -> None:
    torch.manual_seed(0)
    points, centers = torch.randn(2, 9, 3), torch.randn(2, 5, 3)
    values = torch.randn(2, 5, 4, requires_grad=True)
    result = three_interpolate(values, three_nn(points, centers))
    expected = interpolate_reference(values, points, centers)
    assert torch.allclose(result, expected, atol=1e-6)
    weight = torch.randn_like(expected)
    grad, expected_grad = (
        torch.autograd.grad((x * weight).sum(), values)[0] for x in (result, expected)
    )
    assert torch.allclose(grad, expected_grad, atol=1e-6)


def test_value_at_a_center_is_kept() -> None:
    torch.manual_seed(0)
    centers, values = torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    assert torch.allclose(three_interpolate(values, three_nn(centers, centers)), values, atol=1e-4)


def test_weights_sum_to_one_for_any_number_of_centers() -> None:
    torch.manual_seed(0)
    for count in (1, 2, 7):
        nearest = three_nn(torch.randn(2, 11, 3), torch.randn(2, count, 3))
        assert nearest.weight.shape == (2, 11, min(3, count))
        assert torch.allclose(nearest.weight.sum(-1), torch.ones(2, 11))
        assert (nearest.weight >= 0).all()
