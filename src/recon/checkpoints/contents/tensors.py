"""Check the tensors of a checkpoint before they are used as weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.checkpoints.contents.containers import walk_tensors
from recon.utils.printable import check_printable, join_names

ALLOWED_DTYPES = {
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
"""Data types of weights that are accepted."""
MAX_LISTED_NAMES, MAX_PLACES = 100, 5
"""Maximum number of names, and of keys of dictionaries, in a message."""
MAX_FLOAT32 = torch.finfo(torch.float32).max


def select_tensors(path: Path, state: Any, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Check and return named tensors; raise ValueError for any other entry."""
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        places = list_places(checkpoint)
        raise ValueError(
            f"{path}: holds no weights, only {sorted(map(str, checkpoint))[:MAX_LISTED_NAMES]}"
            + (f"; tensors are in {places}" if places else "")
        )
    named = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if others := [str(name) for name in state if name not in named]:
        raise ValueError(
            f"{path}: some entries are not weights: {', '.join(others[:MAX_LISTED_NAMES])}"
        )
    check_printable(named, path)
    _check_tensors(path, named)
    return named


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors that are not dense, not fully stored, or not finite."""
    for name, value in state.items():
        is_dense = value.layout == torch.strided and not (
            value.is_meta or value.is_nested or value.is_quantized
        )
        if not is_dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name!r} is not a dense tensor with all its values stored")
        if value.dtype not in ALLOWED_DTYPES:
            raise ValueError(
                f"{path}: {name!r} has type {value.dtype}, which no network of this library uses"
            )
        if value.is_floating_point() and value.numel() and not _is_finite(value):
            raise ValueError(
                f"{path}: {name!r} has values that are NaN or infinite: its training diverged; "
                "use an earlier checkpoint"
            )


def _is_finite(value: Tensor) -> bool:
    """Tell whether all values are finite in float32, the type of the networks."""
    low, high = value.aminmax()
    return bool(low >= -MAX_FLOAT32) and bool(high <= MAX_FLOAT32)


def list_places(checkpoint: Mapping[str, Any]) -> str:
    """Return the keys in a checkpoint that hold tensors, each with an example of their names."""
    places = [
        f"{'.'.join(keys) or 'the file itself'} ({len(tensors)} tensors, such as {tensors[0]})"
        for keys, named in walk_tensors(checkpoint)
        if (tensors := [name for name, value in named.items() if isinstance(value, Tensor)])
    ]
    return join_names(places, MAX_PLACES)
