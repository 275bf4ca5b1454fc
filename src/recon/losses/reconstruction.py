"""Reconstruction losses: Chamfer distances between predicted and true patches."""

from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.chamfer import chamfer_l1, chamfer_l2


class ChamferL2(nn.Module):
    """Mean squared Chamfer distance over patches, the sum of both directions [1].

    Shapes: predicted (P, N, 3), target (P, M, 3) -> scalar, in squared coordinate units.

    [1] Pang et al., arXiv:2203.06604, equation 5 (l2 form).
    """

    def forward(
        self, predicted: Float[Tensor, "p n 3"], target: Float[Tensor, "p m 3"]
    ) -> Float[Tensor, ""]:
        return chamfer_l2(predicted, target).mean()


class ChamferL1(nn.Module):
    """Mean Chamfer distance over patches, the mean of both directions [1].

    Shapes: predicted (P, N, 3), target (P, M, 3) -> scalar, in coordinate units.

    [1] Pang et al., arXiv:2203.06604, equation 5 (l1 form).
    """

    def forward(
        self, predicted: Float[Tensor, "p n 3"], target: Float[Tensor, "p m 3"]
    ) -> Float[Tensor, ""]:
        return chamfer_l1(predicted, target).mean()
