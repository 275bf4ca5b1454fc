"""Write networks as safetensors folders or as .pth files in the released format."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from recon.checkpoints.factory import Network
from recon.checkpoints.loading import build_metadata, infer_task
from recon.checkpoints.locate import CONFIG_FILENAME, WEIGHTS_FILENAME
from recon.checkpoints.official_keys import (
    Family,
    NetworkKind,
    from_official_state_dict,
    to_official_state_dict,
)
from recon.checkpoints.reader import PROVENANCE_KEY, CheckpointWeights
from recon.layers.patch_embed import PatchEmbed
from recon.models.classifier import Classifier
from recon.models.encoder import MODALITIES, Encoder
from recon.models.point_mae import PointMAE
from recon.models.recon import ReCon
from recon.models.segmenter import DEFAULT_WIDTHS, Segmenter
from recon.models.two_tower import Tower, TwoTowers
from recon.utils.atomic_write import write_atomic

OFFICIAL_PATCH_WIDTHS = (128, 256, 512)
"""Widths of the patch embedding that the released implementation fixes."""


def infer_network_task(network: Network) -> str:
    """Return the task of a network: the `task` of `load`."""
    return infer_task(CheckpointWeights(Path(), network.state_dict(), has_official_keys=False))


def write_pretrained_folder(network: Network, folder: Path, provenance: dict[str, Any]) -> None:
    """Write config.json, with the provenance, and model.safetensors, which `load` reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "library_name": "recon-pointcloud",
        "library_version": version("recon-pointcloud"),
        "task": infer_network_task(network),
        "network": build_metadata(network),
        PROVENANCE_KEY: provenance,
    }
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    write_atomic(folder / WEIGHTS_FILENAME, save(state, metadata={"format": "pt"}))
    write_atomic(folder / CONFIG_FILENAME, json.dumps(config, indent=2).encode())


def build_official_state_dict(network: Network) -> dict[str, Tensor]:
    """Return a network's weights with the names and shapes of the released implementation.

    Raises ValueError with the reason for a network that the released implementation does not have:
    its code could not read such a file, or would compute different outputs.
    """
    if reason := _find_unreleased_part(network):
        raise ValueError(f"cannot be written in the released format: {reason}")
    state, family = network.state_dict(), _get_family(network)
    released = to_official_state_dict(state, _get_kind(network), family)
    if {n: t.shape for n, t in from_official_state_dict(released).items()} != {
        n: t.shape for n, t in state.items()
    }:
        raise ValueError(
            "cannot be written in the released format: some of its weights have no name there"
        )
    return released


def write_official_checkpoint(network: Network, path: Path, epoch: int = 0) -> None:
    """Write a .pth in the released format, see `build_official_state_dict`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu() for name, tensor in build_official_state_dict(network).items()
    }
    # The released segmentation reads its weights under another key than the other tasks.
    key = "model_state_dict" if isinstance(network, Segmenter) else "base_model"
    torch.save({key: state, "epoch": epoch, "metrics": {}, "best_metrics": {}}, path)


def _get_kind(network: Network) -> NetworkKind:
    if isinstance(network, Segmenter):
        return "segment"
    return "classify" if isinstance(network, Classifier) else "pretrain"


def _get_family(network: Network) -> Family:
    is_ordinary = isinstance(getattr(network, "encoder", None), Tower) or isinstance(
        network, PointMAE
    )
    return "Point-MAE" if is_ordinary else "ReCon"


def _find_unreleased_part(network: Network) -> str | None:
    """Describe a part of a network that the released implementation does not have, or None."""
    if not isinstance(network, ReCon | TwoTowers | PointMAE | Classifier | Segmenter):
        return f"it has no {type(network).__name__} without a decoder"
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, Encoder) and tuple(encoder.modalities) != MODALITIES:
        return f"its encoder has the queries {', '.join(MODALITIES)}, this one {encoder.modalities}"
    if isinstance(encoder, Tower) and encoder.modalities != ["cls"]:
        return f"its ordinary classifier has only a class token, this one {encoder.modalities}"
    if isinstance(network, Classifier) and not isinstance(encoder, Encoder | Tower):
        return "it has no classifier on two towers"
    if isinstance(network, ReCon | TwoTowers) and not {"image", "text"} <= {*network.projections}:
        return f"it projects image and text, this one {[*network.projections] or 'nothing'}"
    embeds = [m for m in network.modules() if isinstance(m, PatchEmbed)]
    widths = {(m.point_in.out_features, m.point_out.out_features, m.joint_in.out_features)
              for m in embeds}  # fmt: skip
    if widths != {OFFICIAL_PATCH_WIDTHS}:
        return (
            f"its patches are embedded by layers {OFFICIAL_PATCH_WIDTHS} wide, "
            f"these by {max(widths)}"
        )
    return _find_unreleased_head(network) if isinstance(network, Segmenter) else None


def _find_unreleased_head(network: Segmenter) -> str | None:
    if network.up != "y":
        return f"it does not rotate clouds, this network has the up axis {network.up}"
    propagate, head = network.propagate, network.point_head
    widths = tuple(layer.out_features for layer in (propagate.out, head.joint_in, head.middle))
    if widths != DEFAULT_WIDTHS:
        return f"its layers on points are {DEFAULT_WIDTHS} wide, these {widths}"
    return None
