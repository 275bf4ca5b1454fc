import pytest
import torch

from conftest import released_arrays
from recon.ops.masking import block_mask, random_mask, split_by_mask


@pytest.mark.parametrize("draw", [random_mask, block_mask])
@pytest.mark.parametrize(("ratio", "hidden"), [(0.0, 0), (0.6, 38), (0.99, 63)])
def test_hides_the_floor_of_the_ratio(draw: object, ratio: float, hidden: int) -> None:
    mask = draw(torch.randn(5, 64, 3), ratio)  # type: ignore[operator]
    assert mask.sum(1).tolist() == [hidden] * 5


def test_random_masks_hide_each_patch_equally_often_and_differ() -> None:
    mask = random_mask(torch.zeros(4000, 10, 3), 0.6)
    assert (mask.float().mean(0) - 0.6).abs().max() < 0.03
    assert len(mask.unique(dim=0)) > 200  # of the 210 there are


def test_block_masks_hide_the_nearest_of_a_released_seed() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    centers, seeds = arrays("center"), arrays("mask_block_seed_index")
    # Any seed may be drawn: look for the released ones among many draws of each cloud.
    draws = torch.stack([block_mask(centers, 0.6) for _ in range(600)])
    for i in range(len(centers)):
        expected = arrays("mask_block")[i]
        assert expected[seeds[i]]
        assert (draws[:, i] == expected).all(1).any()


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_refuses_other_ratios(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask ratio must lie in"):
        random_mask(torch.zeros(1, 8, 3), ratio)


def test_patches_are_numbered_in_their_order() -> None:
    mask = random_mask(torch.randn(5, 64, 3), 0.6)
    visible, hidden = split_by_mask(mask, 64)
    assert visible.shape == (5, 26)
    for row in range(5):
        assert torch.equal(hidden[row], mask[row].nonzero()[:, 0])
        assert torch.equal(visible[row], (~mask[row]).nonzero()[:, 0])


@pytest.mark.parametrize("kind", [torch.long, torch.uint8, torch.float])
def test_a_mask_of_numbers_is_refused(kind: torch.dtype) -> None:
    with pytest.raises(ValueError, match="must be of bool, True where hidden"):
        split_by_mask(torch.ones(2, 10).to(kind), 10)


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(2, 9\) does not fit 10 patches"):
        split_by_mask(torch.ones(2, 9, dtype=torch.bool), 10)
    uneven = torch.tensor([[True] * 3 + [False] * 7, [True] * 4 + [False] * 6])
    none, every = torch.zeros(2, 10, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    for bad in (uneven, none, every):
        with pytest.raises(ValueError, match="same number of patches of every cloud"):
            split_by_mask(bad, 10)
