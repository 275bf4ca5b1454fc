"""Contrast among the clouds of a batch, those of all processes, on the projected `cls` query."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from recon.data.batch import Batch
from recon.losses.contrastive import CategoryContrast, NTXentLoss
from recon.ops.distributed import all_gather_with_grad

Project = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b d"]]


class SelfContrast(nn.Module, ABC):
    """A loss on the projected `cls` query of a batch; `keys` names what it reads beside it."""

    keys: tuple[str, ...]

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "b d"], batch: Batch, project: Project
    ) -> Float[Tensor, ""]:
        """Return the loss; `project` turns other clouds into such features."""


class CategorySelfContrast(SelfContrast):
    """Clouds of one category text belong together: supervised, as released (`smc`)."""

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
    """Two augmented views of a cloud belong together: label-free, at twice the cost a step."""

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
