"""Extract the weights of a file that another program wrote, by the names of ReCon's release."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from recon.checkpoints.contents.containers import CONTAINER_KEYS, find_weights, walk_tensors
from recon.checkpoints.contents.families import describe_foreign_family, recognize_family
from recon.checkpoints.contents.tensors import list_places, select_tensors
from recon.checkpoints.contents.torch_pointcloud import (
    from_torch_pointcloud_names,
    has_torch_pointcloud_names,
)
from recon.checkpoints.official_keys import from_official_key

_BARE_ENCODER = "embed.point_in.weight"
_OWN_PREFIXES = (
    "encoder.", "tower.", "generative.", "contrastive.", "decoder.", "projections.", "head.",
)  # fmt: skip


def extract_external_state(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a file without this library's metadata, by names without prefixes.

    The names are those of the released ReCon, Point-MAE or ACT, or of this library. See
    `find_weights` for the choice among several networks. Raises ValueError for weights of any
    other network.
    """
    _refuse_foreign_family(path, checkpoint)
    found = find_weights(path, checkpoint)
    named = next((checkpoint[key] for key in CONTAINER_KEYS if key in checkpoint), checkpoint)
    state = select_tensors(path, found.state if found else named, checkpoint)
    if found is None and not any(from_official_key(n).startswith(_OWN_PREFIXES) for n in state):
        raise ValueError(
            f"{path}: not the weights of a pretrained ReCon, Point-MAE or ACT network: no name of "
            f"theirs is in {list_places(checkpoint)}"
        )
    if has_torch_pointcloud_names(state):
        state = from_torch_pointcloud_names(path, state)
    return _name_bare_encoder(path, state) if _BARE_ENCODER in state else state


def _refuse_foreign_family(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError for weights of another published network."""
    for _, named in walk_tensors(checkpoint):
        shapes = {n: tuple(v.shape) for n, v in named.items() if isinstance(v, Tensor)}
        if family := recognize_family(shapes, shapes):
            raise ValueError(f"{path}: {describe_foreign_family(family)}")


def _name_bare_encoder(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the name of its network to the weights of an encoder that was saved alone.

    The blocks of ReCon and of a standard transformer have the same names. Only their queries tell
    them apart.
    """
    if any(name.startswith("queries.") for name in state):
        prefix = "encoder."
    elif any(name.startswith("query_tokens.") for name in state):
        prefix = "tower."
    else:
        raise ValueError(
            f"{path}: an encoder without queries may be that of ReCon or of Point-MAE, which "
            "compute different features: save the whole network, network.state_dict()"
        )
    return {prefix + name: tensor for name, tensor in state.items()}
