import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.testing import assert_close

from conftest import assert_near, released_arrays
from recon.losses.contrastive import CategoryContrast, NTXentLoss

ARRAYS = released_arrays("recon_pretrain_small.npz")


@pytest.mark.parametrize(
    ("category", "name"),
    [([0, 1, 0, 2], "mixed"), ([0, 1, 2, 3], "all_distinct"), ([5, 5, 5, 5], "all_same")],
)
def test_category_contrast_matches_the_released_loss(category: list[int], name: str) -> None:
    loss = CategoryContrast()(ARRAYS("cls_proj"), torch.tensor(category))
    assert_near(loss, ARRAYS(f"head_loss_{name}"))


def category_contrast_reference(features: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    features = F.normalize(features, dim=-1)
    losses = []
    for anchor, label in zip(features, category, strict=True):
        similarity = features @ anchor / 0.1
        positive = similarity[category == label].mean()
        logits = torch.cat([positive[None], similarity[category != label]])
        losses.append(logits.logsumexp(0) - positive)
    return torch.stack(losses).mean()


def test_category_contrast_and_gradient_equal_the_definition() -> None:
    features, category = torch.randn(16, 8, requires_grad=True), torch.randint(4, (16,))
    loss = CategoryContrast()(features, category)
    expected = category_contrast_reference(features, category)
    assert_close(loss, expected)
    assert_close(*(torch.autograd.grad(value, features)[0] for value in (loss, expected)))


def test_nt_xent_equals_its_definition() -> None:
    first, second = torch.randn(5, 8), torch.randn(5, 8)
    views = F.normalize(torch.cat([first, second]), dim=-1)
    losses = []
    for i, view in enumerate(views):
        similarity = views @ view / 0.1
        others = similarity[torch.arange(10) != i]
        losses.append(others.logsumexp(0) - similarity[(i + 5) % 10])
    assert_close(NTXentLoss()(first, second), torch.stack(losses).mean())
