"""Interpolation against its definition, point by point."""

import torch

from recon.ops.interpolation import EPSILON, three_interpolate, three_nn


def defined(values: torch.Tensor, points: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Loop over clouds and points, as the formula is written."""
    out = torch.zeros(len(points), points.shape[1], values.shape[-1])
    for b, cloud in enumerate(points):
        for n, point in enumerate(cloud):
            distances = (centers[b] - point).square().sum(-1)
            near = distances.argsort()[:3]
            inverse = 1 / (distances[near] + EPSILON)
            out[b, n] = (values[b, near] * (inverse / inverse.sum())[:, None]).sum(0)
    return out


def test_values_and_gradients_are_the_definitions() -> None:
    torch.manual_seed(0)
    points, centers = torch.randn(2, 9, 3), torch.randn(2, 5, 3)
    values = torch.randn(2, 5, 4, requires_grad=True)
    found = three_interpolate(values, three_nn(points, centers))
    known = defined(values, points, centers)
    assert torch.allclose(found, known, atol=1e-6)
    weight = torch.randn_like(known)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), values)[0] for x in (found, known))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_centre_has_its_own_value() -> None:
    torch.manual_seed(0)
    centers, values = torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    assert torch.allclose(three_interpolate(values, three_nn(centers, centers)), values, atol=1e-4)


def test_weights_add_up_and_fewer_centres_work() -> None:
    torch.manual_seed(0)
    for count in (1, 2, 7):
        near = three_nn(torch.randn(2, 11, 3), torch.randn(2, count, 3))
        assert near.weight.shape == (2, 11, min(3, count))
        assert torch.allclose(near.weight.sum(-1), torch.ones(2, 11))
        assert (near.weight >= 0).all()
