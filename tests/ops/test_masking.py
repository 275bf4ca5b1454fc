import pytest
import torch

from conftest import released_arrays
from recon.ops.masking import block_mask, random_mask, split_by_mask


@pytest.mark.parametrize("draw", [random_mask, block_mask])
@pytest.mark.parametrize(("ratio", "num_masked"), [(0.0, 0), (0.6, 38), (0.99, 63)])
def test_number_of_masked_patches_is_the_floor_of_the_ratio(
    draw: object, ratio: float, num_masked: int
) -> None:
    mask = draw(torch.randn(5, 64, 3), ratio)  # type: ignore[operator]
    assert mask.sum(1).tolist() == [num_masked] * 5


def test_random_masks_are_uniform_and_differ() -> None:
    mask = random_mask(torch.zeros(4000, 10, 3), 0.6)
    assert (mask.float().mean(0) - 0.6).abs().max() < 0.03
    assert len(mask.unique(dim=0)) > 200  # of 210 possible masks


def test_block_masks_match_the_released_ones() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    centers, seeds = arrays("center"), arrays("mask_block_seed_index")
    # The seed patch is random: look for the released masks among many draws.
    draws = torch.stack([block_mask(centers, 0.6) for _ in range(600)])
    for i in range(len(centers)):
        expected = arrays("mask_block")[i]
        assert expected[seeds[i]]
        assert (draws[:, i] == expected).all(1).any()


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_invalid_ratio_raises_value_error(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask ratio must be in"):
        random_mask(torch.zeros(1, 8, 3), ratio)


def test_split_indices_are_ascending() -> None:
    mask = random_mask(torch.randn(5, 64, 3), 0.6)
    visible, masked = split_by_mask(mask, 64)
    assert visible.shape == (5, 26)
    for row in range(5):
        assert torch.equal(masked[row], mask[row].nonzero()[:, 0])
        assert torch.equal(visible[row], (~mask[row]).nonzero()[:, 0])


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8, torch.float])
def test_mask_must_be_boolean(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="must be boolean, True where masked"):
        split_by_mask(torch.ones(2, 10).to(dtype), 10)


def test_mask_shape_and_counts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(2, 9\) does not fit 10 patches"):
        split_by_mask(torch.ones(2, 9, dtype=torch.bool), 10)
    uneven = torch.tensor([[True] * 3 + [False] * 7, [True] * 4 + [False] * 6])
    empty, full = torch.zeros(2, 10, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    for mask in (uneven, empty, full):
        with pytest.raises(ValueError, match="same number of patches in every cloud"):
            split_by_mask(mask, 10)
