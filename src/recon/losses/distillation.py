"""Distillation losses between projected queries and the features of a frozen teacher."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


class SmoothL1(nn.SmoothL1Loss):
    """Smooth L1 distance to the raw features, beta 1, mean over all elements: the paper's loss [1].

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
    """Match clouds and teacher features of a batch by cross entropy, in both directions [1].

    Shapes: student (B, D), teacher (B, D) -> scalar, in nats, the mean of the two directions.
    Clouds with equal teacher features (for example equal captions) are positives of each other: the
    target is shared evenly among them.

    [1] Radford et al., arXiv:2103.00020, figure 3.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be more than 0")
        self.temperature = temperature

    def forward(
        self, student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        logits = _cosine_similarity(student, teacher) / self.temperature
        target = _match_equal_rows(teacher).to(logits.dtype)
        target = target / target.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class SigLIP(nn.Module):
    """Classify each pair of the batch as matching or not, by a sigmoid loss [1].

    Shapes: student (B, D), teacher (B, D) -> scalar, in nats, summed over pairs and divided by B.
    Scale and bias are learned. Clouds with equal teacher features are matching pairs.

    [1] Zhai et al., arXiv:2303.15343, equation 1.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(
        self, student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        logits = _cosine_similarity(student, teacher) * self.log_scale.exp() + self.bias
        sign = 2 * _match_equal_rows(teacher).to(logits.dtype) - 1
        return -F.logsigmoid(sign * logits).sum() / len(logits)


def _cosine_similarity(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
) -> Float[Tensor, "b b"]:
    return F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).T


def _match_equal_rows(teacher: Float[Tensor, "b d"]) -> Tensor:
    """Return which pairs of rows are equal, (B, B); the diagonal is True."""
    _, group = torch.unique(teacher, dim=0, return_inverse=True)
    return group.unsqueeze(0) == group.unsqueeze(1)
