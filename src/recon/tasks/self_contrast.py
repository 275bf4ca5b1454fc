"""Self-contrast of the projected `cls` queries of a batch, gathered from all processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from recon.data.batch import Batch
from recon.losses.contrastive import CategoryContrast, NTXentLoss
from recon.ops.distributed import all_gather_with_grad

Project = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b d"]]


class SelfContrast(nn.Module, ABC):
    """A loss on the projected `cls` queries of a batch; `keys` are the batch entries it reads."""

    keys: tuple[str, ...]

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "b d"], batch: Batch, project: Project
    ) -> Float[Tensor, ""]:
        """Return the loss; `project` computes the same features of other clouds."""


class CategorySelfContrast(SelfContrast):
    """Treat clouds with the same category text as positives: supervised, as released (`smc`)."""

    keys = ("category",)

    def __init__(self, loss: CategoryContrast) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self,
        features: Float[Tensor, "b d"],
        batch: Batch,
        project: Project,
    ) -> Float[Tensor, ""]:
        return self.loss(all_gather_with_grad(features), all_gather_with_grad(batch["category"]))


class ViewSelfContrast(SelfContrast):
    """Treat two augmented views of a cloud as positives: self-supervised, at twice the cost."""

    keys = ("second_view",)

    def __init__(self, loss: NTXentLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, features: Float[Tensor, "b d"], batch: Batch, project: Project
    ) -> Float[Tensor, ""]:
        return self.loss(
            all_gather_with_grad(features), all_gather_with_grad(project(batch["second_view"]))
        )
