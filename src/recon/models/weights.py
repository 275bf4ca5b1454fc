"""Named weights in a file: official .pth files and this library's checkpoints, read safely."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recon.models.encoder import MODALITIES
from recon.models.official import Kind, from_official, is_official, to_official

FORMAT_KEY = "recon"
"""Where a checkpoint of this library keeps what its weights do not tell."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values; nothing in it is executed.

    Raises FileNotFoundError for a missing file and ValueError that names one that holds
    something else.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder: name a file in it, such as checkpoints/last.ckpt")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    # Official files keep numpy scalars beside the weights; nothing else is let in.
    scalar = np.float64(0).__reduce__()[0]
    numpy_types: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")},
    ]
    try:
        with torch.serialization.safe_globals(numpy_types):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of anything else fails in any way
        refused = re.search(r"WeightsUnpickler error: (.*)", str(error))
        reason = refused[1] if refused else str(error).strip().split("\n")[0] or repr(error)
        raise ValueError(f"{path}: not a checkpoint that can be read safely ({reason})") from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not named weights")
    return dict(checkpoint)


class Weights(NamedTuple):
    """The weights in a file, under the names of this library."""

    path: Path
    state: dict[str, Tensor]
    official: bool

    @property
    def kind(self) -> Kind:
        """What the network is for."""
        if self.has("point_head."):
            return "segment"
        return "classify" if self.has("head.") else "pretrain"

    def listed(self, name: str) -> str:
        """Name a weight as the file does, and in brackets as this library does."""
        theirs = to_official(name, self.kind) if self.official else name
        return name if theirs == name else f"{theirs} ({name})"

    def width(self, layer: str) -> int:
        """Return how many outputs a layer has; raise ValueError where the file lacks it."""
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in self.state:
                return len(self.state[name])
        raise ValueError(
            f"{self.path}: not the weights of a pretrained ReCon; "
            f"missing: {self.listed(f'{layer}.weight')}"
        )

    def has(self, beginning: str) -> bool:
        """Tell whether any name begins so."""
        return any(name.startswith(beginning) for name in self.state)

    def modalities(self, *beginnings: str, released: Sequence[str] = ()) -> list[str]:
        """Return the modalities that names speak of, and those that every released file has."""
        always = released if self.official else ()
        return [
            m
            for m in MODALITIES
            if m in always
            or any(n.startswith(tuple(b + m for b in beginnings)) for n in self.state)
        ]


def weights_in(path: Path, checkpoint: Mapping[str, Any]) -> Weights:
    """Return a checkpoint's weights by this library's names; raise ValueError for none."""
    if FORMAT_KEY in checkpoint:
        prefix = "model."
        state = checkpoint["state_dict"]
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return Weights(path, own, official=False)
    known = ("base_model", "model_state_dict", "model")
    state = next((checkpoint[key] for key in known if key in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: holds no weights, only {sorted(map(str, checkpoint))}")
    if others := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path}: beside weights it holds {', '.join(others)}")
    return Weights(path, from_official(state), official=is_official(state))


def count_blocks(names: Iterable[str], pattern: str) -> int:
    """Count the consecutive indices that `pattern` finds in the names."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return 12 hexadecimal digits that change with any weight, whatever file holds them."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return found.hexdigest()[:12]
