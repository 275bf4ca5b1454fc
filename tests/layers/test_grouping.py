import pytest
import torch
from torch.testing import assert_close

from conftest import released_arrays
from recon.layers.grouping import PatchGrouper


def test_cuts_the_released_patches() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    patches = PatchGrouper(64, 32)(arrays("points"))
    assert torch.equal(patches.centers, arrays("center"))
    index = arrays("knn_idx_sorted").long()
    order = torch.cdist(patches.points, arrays("neighborhood_sorted")).argmin(-1).sort(-1).values
    assert torch.equal(order, torch.arange(32).expand_as(index))


def test_patches_move_with_the_cloud() -> None:
    points, shift = torch.rand(2, 100, 3, dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0])
    grouper = PatchGrouper(8, 16)
    here, there = grouper(points), grouper(points + shift.double())
    assert_close(there.centers, here.centers + shift.double())
    assert_close(there.points.sort(2).values, here.points.sort(2).values)


def test_each_patch_holds_its_centre() -> None:
    patches = PatchGrouper(8, 16)(torch.randn(2, 100, 3))
    assert (patches.points == 0).all(-1).any(-1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_points_that_are_not_finite(value: float) -> None:
    points = torch.randn(2, 50, 3)
    points[1, 7, 2] = value
    with pytest.raises(ValueError, match="cloud 1 holds a NaN or infinite coordinate at point 7"):
        PatchGrouper(8, 16)(points)


def test_refuses_fewer_points_than_groups() -> None:
    with pytest.raises(ValueError, match="cannot pick 64 centres from 50 points"):
        PatchGrouper(64, 32)(torch.randn(2, 50, 3))
