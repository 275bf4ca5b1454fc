"""How far a student's projected queries are from a frozen teacher's features."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


class SmoothL1(nn.SmoothL1Loss):
    """Mean Huber distance to the raw features, beta 1: the paper's distillation [1].

    Shapes: student (B, D), teacher (B, D) -> scalar.

    [1] Qi et al., arXiv:2302.02318, equation 3.
    """


class Cosine(nn.Module):
    """One minus the mean cosine similarity, in [0, 2]; (B, D), (B, D) -> scalar."""

    def forward(
        self, student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


class InfoNCE(nn.Module):
    """Tell each cloud's teacher feature from the rest of the batch's, both ways, in nats [1].

    Shapes: student (B, D), teacher (B, D) -> scalar, the mean of the two directions. Clouds whose
    teacher features are the same (equal captions, say) are each other's positives: the target is
    shared evenly among them.

    [1] Radford et al., arXiv:2103.00020, figure 3.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self, student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        logits = _similarity(student, teacher) / self.temperature
        target = _same(teacher).to(logits.dtype)
        target = target / target.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class SigLIP(nn.Module):
    """Decide for each pair of the batch whether it belongs together, in nats a cloud [1].

    Shapes: student (B, D), teacher (B, D) -> scalar, summed over pairs and divided by B. Scale and
    bias are learned. Equal teacher features count as pairs that belong together.

    [1] Zhai et al., arXiv:2303.15343, equation 1.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(
        self, student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        logits = _similarity(student, teacher) * self.log_scale.exp() + self.bias
        sign = 2 * _same(teacher).to(logits.dtype) - 1
        return -F.logsigmoid(sign * logits).sum() / len(logits)


def _similarity(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
) -> Float[Tensor, "b b"]:
    return F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).T


def _same(teacher: Float[Tensor, "b d"]) -> Tensor:
    """Return which rows are equal, (B, B), each to itself at least."""
    _, group = torch.unique(teacher, dim=0, return_inverse=True)
    return group.unsqueeze(0) == group.unsqueeze(1)
