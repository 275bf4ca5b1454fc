"""What every teacher is: frozen, in evaluation mode, and not part of a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn


class Teacher(nn.Module, ABC):
    """A frozen encoder of another modality: batch in, features (B, dim) out.

    `keys` names what it reads of a batch, so that the data road brings no more than that.
    """

    keys: tuple[str, ...]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever the trainer asks."""
        return super().train(mode=False)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:  # noqa: B027
        """Check before training that these can be taught; a live teacher teaches anything.

        `names` gives all ids (key `id`) and texts (key `text`) of a data set. Raises ValueError.
        """

    @abstractmethod
    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        """Encode a batch."""


class LiveTeacher(Teacher):
    """A teacher that runs a network.

    The network moves between devices with its student, but is no submodule: optimizers,
    checkpoints, summaries and `train()` do not see it.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(dim)
        self._hidden: tuple[Any] = (network.eval().requires_grad_(requires_grad=False),)

    @property
    def network(self) -> Any:
        return self._hidden[0]

    def check_dim(self, name: str, example: Float[Tensor, "1 found"]) -> None:
        """Raise ValueError where the network's features have another width than `dim`."""
        if (found := example.shape[-1]) != self.dim:
            raise ValueError(
                f"teacher {name} gives {found} features, but its dim is set to {self.dim}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.encode(batch)

    @abstractmethod
    def encode(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        """Encode a batch; called without gradients."""


def load_teacher_network(name: str, weights: str | None, build: Callable[[], nn.Module]) -> Any:
    """Build a network whose weights are downloaded or read; raise OSError with the cure."""
    try:
        return build()
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        cure = (
            "give the file of this very model"
            if weights and Path(weights).exists()
            else "connect to the internet once, or give a local file by `weights=`, "
            "or train with teacher=cached"
        )
        raise OSError(f"cannot load teacher {name} ({reason}): {cure}") from error
