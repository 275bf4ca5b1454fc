import pytest
import torch
from torch.testing import assert_close

from conftest import released_arrays
from recon.layers.grouping import PatchGrouper


def test_patches_match_the_released_ones() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    patches = PatchGrouper(64, 32)(arrays("points"))
    assert torch.equal(patches.centers, arrays("center"))
    index = arrays("knn_idx_sorted").long()
    order = torch.cdist(patches.points, arrays("neighborhood_sorted")).argmin(-1).sort(-1).values
    assert torch.equal(order, torch.arange(32).expand_as(index))


def test_patches_move_with_the_cloud() -> None:
    points, shift = torch.rand(2, 100, 3, dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0])
    grouper = PatchGrouper(8, 16)
    original, moved = grouper(points), grouper(points + shift.double())
    assert_close(moved.centers, original.centers + shift.double())
    assert_close(moved.points.sort(2).values, original.points.sort(2).values)


def test_each_patch_contains_its_center() -> None:
    patches = PatchGrouper(8, 16)(torch.randn(2, 100, 3))
    assert (patches.points == 0).all(-1).any(-1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_points_raise_value_error(value: float) -> None:
    points = torch.randn(2, 50, 3)
    points[1, 7, 2] = value
    with pytest.raises(ValueError, match="cloud 1 has a NaN or infinite coordinate at point 7"):
        PatchGrouper(8, 16)(points)


def test_fewer_points_than_groups_raise_value_error() -> None:
    with pytest.raises(ValueError, match="cannot pick 64 centers from 50 points"):
        PatchGrouper(64, 32)(torch.randn(2, 50, 3))
