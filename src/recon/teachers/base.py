"""Define the base classes of teachers: frozen, in evaluation mode, not part of a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from recon.utils.network import cached_hub_files, explain_unreachable_hub


class Teacher(nn.Module, ABC):
    """A frozen encoder of another modality: maps a batch to features (B, dim).

    `keys` are the batch entries that it reads; the data module loads only these.
    """

    keys: tuple[str, ...]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode; `mode` is ignored."""
        return super().train(mode=False)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:  # noqa: B027
        """Raise ValueError before training if the teacher lacks features of some samples.

        `names` are all ids (key `id`) and texts (key `text`) of a data set. A live teacher can
        encode any sample.
        """

    @abstractmethod
    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        """Encode a batch."""


class LiveTeacher(Teacher):
    """A teacher that runs a network.

    The network moves between devices with the student but is not registered as a submodule, so
    optimizers, checkpoints, summaries and `train()` ignore it.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(dim)
        # A tuple hides the network from the registration of submodules.
        self._unregistered: tuple[Any] = (network.eval().requires_grad_(requires_grad=False),)

    @property
    def network(self) -> Any:
        return self._unregistered[0]

    def check_dim(self, name: str, example: Float[Tensor, "1 d"]) -> None:
        """Raise ValueError if the width of the network's features is not `dim`."""
        if (width := example.shape[-1]) != self.dim:
            raise ValueError(
                f"teacher {name} has features of width {width}, but dim is set to {self.dim}: "
                f"set its dim to {width}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.encode(batch)

    @abstractmethod
    def encode(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        """Encode a batch; runs without gradients."""


def load_teacher_network(
    name: str, weights: str | None, build: Callable[[], Any], *, option: str, needs_hub: bool
) -> Any:
    """Build a network with downloaded or local weights; raise OSError with a hint on failure.

    `option` sets a local file instead of a download, e.g. `teacher.text.weights`. If `needs_hub`,
    files come from the Hugging Face Hub, or from its local cache if the Hub does not answer.
    """
    unreachable = explain_unreachable_hub() if needs_hub else None
    try:
        with cached_hub_files(only=unreachable is not None):
            return build()
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        reason = unreachable or str(error).strip().split("\n")[0]
        hint = (
            "give a weights file of this model"
            if weights and Path(weights).exists()
            else f"connect to the internet once, or give a local file, {option}=<file>, "
            "or train with teacher=cached"
        )
        raise OSError(f"cannot load teacher {name} ({reason}): {hint}") from error
