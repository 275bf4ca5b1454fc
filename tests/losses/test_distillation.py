import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.testing import assert_close

from conftest import assert_near, released_arrays
from recon.losses.distillation import Cosine, InfoNCE, SigLIP, SmoothL1

LOSSES = [SmoothL1(), Cosine(), InfoNCE(), SigLIP()]


def test_smooth_l1_matches_the_released_loss() -> None:
    arrays = released_arrays("recon_pretrain_small.npz")
    assert_near(SmoothL1()(arrays("img_pred"), arrays("img_feature")), arrays("loss_csc_img"))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_pull_the_student_to_its_teacher(loss: nn.Module) -> None:
    teacher = torch.randn(6, 16)
    student = (teacher + 2 * torch.randn(6, 16)).requires_grad_()
    before = loss(student, teacher)
    before.backward()
    assert loss(student - 0.1 * student.grad, teacher) < before
    assert loss(teacher, teacher) < before


def test_cosine_ignores_scale() -> None:
    student, teacher = torch.randn(6, 16), torch.randn(6, 16)
    assert_close(Cosine()(3 * student, teacher), Cosine()(student, teacher))
    assert_close(Cosine()(-teacher, teacher), torch.tensor(2.0))


def test_infonce_equals_its_definition() -> None:
    student, teacher = torch.randn(6, 16), torch.randn(6, 16)
    logits = F.cosine_similarity(student[:, None], teacher[None], dim=-1) / 0.07
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert_close(InfoNCE(0.07)(student, teacher), expected)


def test_siglip_equals_its_definition() -> None:
    student, teacher = torch.randn(6, 16), torch.randn(6, 16)
    logits = 10 * F.cosine_similarity(student[:, None], teacher[None], dim=-1) - 10
    expected = -sum(
        F.logsigmoid(logits[i, j] if i == j else -logits[i, j]) for i in range(6) for j in range(6)
    )
    assert_close(SigLIP()(student, teacher), expected / 6)


@pytest.mark.parametrize("loss", [InfoNCE(), SigLIP()])
def test_equal_teacher_features_are_not_negatives(loss: nn.Module) -> None:
    teacher = torch.randn(6, 16)
    teacher[3] = teacher[0]
    swapped = torch.tensor([3, 1, 2, 0, 4, 5])
    student = torch.randn(6, 16)
    assert_close(loss(student, teacher), loss(student[swapped], teacher))


def test_siglip_scale_and_bias_are_learned() -> None:
    loss = SigLIP()
    loss(torch.randn(6, 16), torch.randn(6, 16)).backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
