"""Contrast among the clouds of a batch, those of all processes, on the projected `cls` query."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from recon.data.batch import Batch
from recon.losses.contrastive import CategoryContrast, ViewContrast
from recon.ops.distributed import everyone

Project = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b d"]]


class SelfContrast(nn.Module, ABC):
    """A loss on the projected `cls` query of a batch; `keys` names what it reads beside it."""

    keys: tuple[str, ...]

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "b d"], batch: Batch, project: Project
    ) -> Float[Tensor, ""]:
        """Return the loss; `project` turns other clouds into such features."""


class ByCategory(SelfContrast):
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
        return self.loss(everyone(features), everyone(batch["category"]))


class ByView(SelfContrast):
    """Two augmented views of a cloud belong together: label-free, at twice the cost a step."""

    keys = ("second",)

    def __init__(self, loss: ViewContrast) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, features: Float[Tensor, "b d"], batch: Batch, project: Project
    ) -> Float[Tensor, ""]:
        return self.loss(everyone(features), everyone(project(batch["second"])))
