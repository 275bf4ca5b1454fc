"""How far rebuilt patches are from the true ones."""

from jaxtyping import Float
from torch import Tensor, nn

from recon.ops.chamfer import chamfer_l1, chamfer_l2


class ChamferL2(nn.Module):
    """Mean squared Chamfer distance over patches, both directions added, squared units [1].

    Shapes: predicted (P, N, 3), target (P, M, 3) -> scalar.

    [1] Pang et al., arXiv:2203.06604, equation 5 (l2 form).
    """

    def forward(
        self, predicted: Float[Tensor, "p n 3"], target: Float[Tensor, "p m 3"]
    ) -> Float[Tensor, ""]:
        return chamfer_l2(predicted, target).mean()


class ChamferL1(nn.Module):
    """Mean of the two directions' mean distances over patches, coordinate units [1].

    Shapes: predicted (P, N, 3), target (P, M, 3) -> scalar.

    [1] Pang et al., arXiv:2203.06604, equation 5 (l1 form).
    """

    def forward(
        self, predicted: Float[Tensor, "p n 3"], target: Float[Tensor, "p m 3"]
    ) -> Float[Tensor, ""]:
        return chamfer_l1(predicted, target).mean()
