"""Load networks from checkpoints and released .pth files; every key must match."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from recon.checkpoints.contents.tensors import MAX_LISTED_NAMES
from recon.checkpoints.factory import Network, NetworkBuilder, find_encoder_prefix
from recon.checkpoints.locate import locate_checkpoint
from recon.checkpoints.metadata import check_class_counts, check_metadata
from recon.checkpoints.official_keys import NetworkKind
from recon.checkpoints.reader import (
    METADATA_KEY,
    CheckpointWeights,
    extract_weights,
    read_checkpoint,
)
from recon.models.classifier import Classifier
from recon.models.encoder import Encoder
from recon.models.recon import PretrainingNetwork
from recon.models.segmenter import Segmenter
from recon.utils.printable import join_names

RELEASED_BASE = {"num_heads": 6, "num_groups": 64, "group_size": 32}
"""Settings of the released base model that its file does not contain."""
TASKS: dict[str, NetworkKind] = {
    "pretrain": "pretrain",
    "classify": "classify",
    "part_segment": "segment",
    "scene_segment": "segment",
}


def build_metadata(model: Network) -> dict[str, Any]:
    """Return the metadata that weights do not contain: heads, patches, class names, up axis."""
    grouper, trunk = model.grouper, find_encoder_prefix(dict(model.named_parameters()))
    encoder = model.get_submodule(trunk)
    metadata: dict[str, Any] = {}
    if isinstance(encoder, Encoder):
        metadata["stop_gradient"] = encoder.stop_gradient
    if isinstance(model, Classifier | Segmenter) and model.class_names:
        metadata["classes"] = list(model.class_names)
    if isinstance(model, Segmenter):
        metadata["up"] = model.up
    if isinstance(model, Segmenter) and model.object_names:
        metadata["objects"] = list(model.object_names)
        metadata["parts"] = {name: [*ids] for name, ids in model.parts.items()}
    return metadata | {
        "num_heads": encoder.get_submodule("blocks.0.attn").heads,
        "num_groups": grouper.groups,
        "group_size": grouper.group_size,
        "skip_near_origin": grouper.skip_near_origin,
    }


def find_mismatches(
    expected: Mapping[str, Tensor], weights: CheckpointWeights
) -> dict[str, list[str]]:
    """List the keys that are missing or unexpected, or have another shape or type."""
    state = weights.state_dict
    types = {k: (state[k].dtype, v.dtype) for k, v in expected.items() if k in state}
    mismatches = {
        "missing": [weights.display_name(k) for k in expected if k not in state],
        "unexpected": [weights.display_name(k) for k in state if k not in expected],
        "of another shape": [
            f"{weights.display_name(k)} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
            for k, v in expected.items()
            if k in state and state[k].shape != v.shape
        ],
        "of another type": [
            f"{weights.display_name(k)} {dtype} instead of {expected_dtype}"
            for k, (dtype, expected_dtype) in types.items()
            if dtype.is_floating_point != expected_dtype.is_floating_point
        ],
    }
    return {kind: keys for kind, keys in mismatches.items() if keys}


def _merge_settings(
    weights: CheckpointWeights, metadata: dict[str, Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Merge the file's metadata with the caller's arguments, which may only change the grouping."""
    path = weights.path
    fixed_names = {"num_heads"} & metadata.keys()
    if weights.has_prefix("decoder."):
        metadata["group_size"] = weights.out_features("decoder.project") // 3
        fixed_names.add("group_size")
    arguments = {name: value for name, value in arguments.items() if value is not None}
    for name in fixed_names & arguments.keys():
        if arguments[name] != metadata[name]:
            raise ValueError(
                f"{path}: {name}={arguments[name]} contradicts the file's {metadata[name]}"
            )
    defaults: dict[str, Any] = {"skip_near_origin": False, "stop_gradient": True}
    defaults |= {"classes": (), "objects": (), "parts": {}, "up": "y"}
    # The patch size cannot be read from weights without a decoder; released ones all use 32.
    is_encoder = weights.has_official_keys and not weights.has_prefix("decoder.")
    if weights.kind != "pretrain" or is_encoder:
        defaults["group_size"] = 32
    settings = {**defaults, **metadata, **arguments}
    if missing := [n for n in ("num_heads", "num_groups", "group_size") if n not in settings]:
        raise ValueError(
            f"{path}: the file lacks {', '.join(missing)}: pass "
            f"{'it' if len(missing) == 1 else 'them'} to load, for the released base model "
            f"{', '.join(f'{n}={RELEASED_BASE[n]}' for n in missing)} (on the command line "
            f"{' '.join(f'network.{n}={RELEASED_BASE[n]}' for n in missing)})"
        )
    return settings


def read_task(checkpoint: str | Path) -> str:
    """Return the task that the network in a checkpoint was trained for: the `task` of `load`."""
    path = locate_checkpoint(checkpoint)
    return infer_task(extract_weights(path, read_checkpoint(path)))


def infer_task(weights: CheckpointWeights) -> str:
    """Return the task that weights were trained for, a key of `TASKS`."""
    if weights.kind != "segment":
        return weights.kind
    return "part_segment" if weights.has_prefix("object_embed.") else "scene_segment"


@overload
def load(
    checkpoint: str | Path,
    *,
    task: Literal["pretrain"] = "pretrain",
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> PretrainingNetwork: ...
@overload
def load(
    checkpoint: str | Path,
    *,
    task: Literal["classify"],
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> Classifier: ...
@overload
def load(
    checkpoint: str | Path,
    *,
    task: Literal["part_segment", "scene_segment"],
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> Segmenter: ...
def load(
    checkpoint: str | Path,
    *,
    task: str = "pretrain",
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> Network:
    """Load a network, in evaluation mode, from a checkpoint file, a saved folder or the Hub.

    `checkpoint` is a checkpoint of this library, a released .pth of ReCon, Point-MAE or ACT, a
    folder that `save_pretrained` wrote, or such a repository of the Hugging Face Hub, `owner/name`
    or `owner/name@revision`. `task` is the task that the network was trained for: pretrain,
    classify, part_segment or scene_segment. Width, depth and queries are read from the weights,
    and `group_size` too if they include a decoder. Released files do not contain the numbers of
    heads and groups, so pass them: 6 heads for base, 4 for small, 3 for tiny; 64 groups
    for 1,024 points. `skip_near_origin` copies the rule of the released sampling kernel (see
    `farthest_point_sample`).

    Raises FileNotFoundError for a missing file. Raises ValueError for an unknown task, a file that
    cannot be read without executing it or was trained for another task, an argument that is
    missing or contradicts the weights, and missing or unexpected keys, which are listed.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose {' or '.join(map(repr, TASKS))}")
    path = locate_checkpoint(checkpoint)
    contents = read_checkpoint(path)
    weights = extract_weights(path, contents)
    if task != (trained_task := infer_task(weights)):
        raise ValueError(f"{path}: holds weights for task={trained_task!r}, not for {task!r}")
    arguments = {
        "num_heads": num_heads,
        "num_groups": num_groups,
        "group_size": group_size,
        "skip_near_origin": skip_near_origin,
    }
    metadata = check_metadata(path, contents.get(METADATA_KEY, {}))
    settings = _merge_settings(weights, metadata, arguments)
    # Built on the meta device first: a malicious file can request a network of any size.
    with torch.device("meta"):
        meta_network = _build_network(weights, settings)
    if mismatches := find_mismatches(meta_network.state_dict(), weights):
        lists = "; ".join(
            f"{kind}: {join_names(keys, MAX_LISTED_NAMES)}" for kind, keys in mismatches.items()
        )
        raise ValueError(f"{path}: the weights do not fit the network; {lists}")
    check_class_counts(path, meta_network)
    model = _build_network(weights, settings)
    model.load_state_dict(weights.state_dict)
    return model.eval()


def _build_network(weights: CheckpointWeights, settings: dict[str, Any]) -> Network:
    """Build the network of a checkpoint; raise ValueError that names the file."""
    try:
        return NetworkBuilder(weights, settings).build(weights.kind)
    except Exception as error:  # impossible sizes raise any kind of error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(str(weights.path)):
            raise
        raise ValueError(
            f"{weights.path}: not the weights of a network of this library ({reason})"
        ) from error
