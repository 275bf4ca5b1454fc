"""Self-contrast losses of the `cls` query, by category or by augmented view, without a teacher."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

TEMPERATURE = 0.1


class CategoryContrast(nn.Module):
    """Supervised contrast: pull clouds of one category together, push other categories apart [1].

    Shapes: features (B, D), category (B,) integer -> scalar, in nats. The loss of a cloud is the
    cross entropy of its mean similarity to the clouds of its category, itself included, against
    its similarity to each cloud of the other categories.

    [1] The released implementation's single-modal contrast (`smc`).
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be more than 0")
        self.temperature = temperature

    def forward(
        self, features: Float[Tensor, "b d"], category: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        features = F.normalize(features, dim=-1)
        similarity = features @ features.T / self.temperature
        same = category.unsqueeze(0) == category.unsqueeze(1)
        positive = (similarity * same).sum(1, keepdim=True) / same.sum(1, keepdim=True)
        logits = torch.cat([positive, similarity.masked_fill(same, -torch.inf)], 1)
        return (logits.logsumexp(1) - positive[:, 0]).mean()


class NTXentLoss(nn.Module):
    """Pull two augmented views of a cloud together, push other clouds apart; label-free [1].

    Shapes: features (B, D) of each view -> scalar, in nats, the mean over all 2B views.

    [1] Chen et al., arXiv:2002.05709, equation 1 (NT-Xent).
    """

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be more than 0")
        self.temperature = temperature

    def forward(
        self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        features = F.normalize(torch.cat([first, second]), dim=-1)
        logits = (features @ features.T / self.temperature).fill_diagonal_(-torch.inf)
        batch = len(first)
        partner = torch.arange(2 * batch, device=logits.device).roll(batch)
        return F.cross_entropy(logits, partner)
