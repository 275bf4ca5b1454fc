"""Weights in: official .pth files and this library's checkpoints, every key accounted for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from recon.checkpoints.factory import Network, NetworkBuilder, find_encoder_prefix
from recon.checkpoints.locate import locate_checkpoint
from recon.checkpoints.metadata import check_class_counts, check_metadata
from recon.checkpoints.official_keys import NetworkKind
from recon.checkpoints.reader import (
    MAX_LISTED_NAMES,
    METADATA_KEY,
    CheckpointWeights,
    extract_weights,
    read_checkpoint,
)
from recon.models.classifier import Classifier
from recon.models.encoder import Encoder
from recon.models.recon import PretrainingNetwork
from recon.models.segmenter import Segmenter

TASKS: dict[str, NetworkKind] = {
    "pretrain": "pretrain",
    "classify": "classify",
    "part_segment": "segment",
    "scene_segment": "segment",
}


TRAINING_STATE_TYPES: dict[str, type] = {
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
}
"""What a training goes on from."""


def build_metadata(model: Network) -> dict[str, Any]:
    """Return what a model's weights do not tell: heads, groups, patch size, names of classes."""
    grouper, trunk = model.grouper, find_encoder_prefix(dict(model.named_parameters()))
    encoder = model.get_submodule(trunk)
    own: dict[str, Any] = {}
    if isinstance(encoder, Encoder):
        own["stop_gradient"] = encoder.stop_gradient
    if isinstance(model, Classifier | Segmenter) and model.class_names:
        own["classes"] = list(model.class_names)
    if isinstance(model, Segmenter):
        own["up"] = model.up
    if isinstance(model, Segmenter) and model.object_names:
        own["objects"] = list(model.object_names)
        own["parts"] = {name: [*rows] for name, rows in model.parts.items()}
    return own | {
        "num_heads": encoder.get_submodule("blocks.0.attn").heads,
        "num_groups": grouper.groups,
        "group_size": grouper.group_size,
        "skip_near_origin": grouper.skip_near_origin,
    }


def find_mismatches(
    expected: Mapping[str, Tensor], weights: CheckpointWeights
) -> dict[str, list[str]]:
    """List the keys that are missing, left over or misshapen."""
    state = weights.state_dict
    types = {k: (state[k].dtype, v.dtype) for k, v in expected.items() if k in state}
    found = {
        "missing": [weights.display_name(k) for k in expected if k not in state],
        "left over": [weights.display_name(k) for k in state if k not in expected],
        "of another shape": [
            f"{weights.display_name(k)} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
            for k, v in expected.items()
            if k in state and state[k].shape != v.shape
        ],
        "of another type": [
            f"{weights.display_name(k)} {found} instead of {asked}"
            for k, (found, asked) in types.items()
            if found.is_floating_point != asked.is_floating_point
        ],
    }
    return {kind: keys for kind, keys in found.items() if keys}


def _list(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - MAX_LISTED_NAMES} more" if len(keys) > MAX_LISTED_NAMES else ""
    return ", ".join(keys[:MAX_LISTED_NAMES]) + more


def check_resumable(path: Path, task: nn.Module) -> None:
    """Raise ValueError where a training of `task` cannot go on from a file."""
    checkpoint = read_checkpoint(path)
    if METADATA_KEY not in checkpoint or "loops" not in checkpoint:
        raise ValueError(
            f"{path}: holds no state of a training: resume from <run>/checkpoints/last.ckpt"
        )
    for name, kind in TRAINING_STATE_TYPES.items():
        if not isinstance(checkpoint.get(name), kind):
            raise ValueError(f"{path}: its `{name}` is none of a training: it was made otherwise")
    weights = CheckpointWeights(path, checkpoint["state_dict"], has_official_keys=False)
    if wrong := find_mismatches(task.state_dict(), weights):
        few = "; ".join(f"{len(keys)} {kind}, e.g. {keys[0]}" for kind, keys in wrong.items())
        raise ValueError(
            f"{path}: a training of another network or student ({few}): resume it with the "
            "options it began with, see config.yaml in the folder of its run"
        )


def _settings(
    weights: CheckpointWeights, told: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Join what the file tells with what the caller gave; only the grouping may be changed."""
    path = weights.path
    fixed = {"num_heads"} & told.keys()
    if weights.has_prefix("decoder."):
        told["group_size"] = weights.out_features("decoder.project") // 3
        fixed.add("group_size")
    given = {name: value for name, value in given.items() if value is not None}
    for name in fixed & given.keys():
        if given[name] != told[name]:
            raise ValueError(f"{path}: {name}={given[name]} contradicts the file's {told[name]}")
    defaults: dict[str, Any] = {"skip_near_origin": False, "stop_gradient": True}
    defaults |= {"classes": (), "objects": (), "parts": {}, "up": "y"}
    if (
        weights.kind != "pretrain" or weights.family == "ACT"
    ):  # released ones cannot tell, and all have this one
        defaults["group_size"] = 32
    settings = {**defaults, **told, **given}
    if lacking := [n for n in ("num_heads", "num_groups", "group_size") if n not in settings]:
        raise ValueError(
            f"{path}: the weights do not tell {', '.join(lacking)}: pass them to load, "
            "for the released base model num_heads=6, num_groups=64 (on the command line "
            "network.num_heads=6 network.num_groups=64)"
        )
    return settings


def read_task(checkpoint: str | Path) -> str:
    """Return what the network in a file was trained for, as `load` has to be told."""
    path = locate_checkpoint(checkpoint)
    return infer_task(extract_weights(path, read_checkpoint(path)))


def infer_task(weights: CheckpointWeights) -> str:
    """Return what weights were trained for, by the names of `TASKS`."""
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
    """Load a network, in evaluation mode, from wherever its weights are.

    `checkpoint` is a checkpoint of this library, a released .pth, of Point-MAE and ACT too, a
    folder that `save_pretrained` wrote, or such a repository of the Hugging Face Hub, `owner/name`
    or `owner/name@revision`. `task` is what it was trained for:
    pretrain, classify, part_segment or scene_segment. Width, depths and queries are read from the
    weights, `group_size` too where they hold a decoder; heads and groups are not in released files
    and must be given: base 6, small 4, tiny 3 heads; 64 groups for 1,024 points.
    `skip_near_origin` copies the released sampling kernel's rule (see `farthest_point_sample`).

    Raises FileNotFoundError for a missing file and ValueError for an unknown task, a file that
    cannot be read without executing it or was trained for another task, an argument that is
    missing or contradicts the weights, and keys missing or left over, which are listed.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose {' or '.join(map(repr, TASKS))}")
    path = locate_checkpoint(checkpoint)
    contents = read_checkpoint(path)
    weights = extract_weights(path, contents)
    if task != (held := infer_task(weights)):
        raise ValueError(f"{path}: holds weights for task={held!r}, not for {task!r}")
    given = {
        "num_heads": num_heads,
        "num_groups": num_groups,
        "group_size": group_size,
        "skip_near_origin": skip_near_origin,
    }
    settings = _settings(weights, check_metadata(path, contents.get(METADATA_KEY, {})), given)
    # Without memory first: sizes that a file makes up would take any amount of it.
    with torch.device("meta"):
        outline = _build(weights, settings)
    if wrong := find_mismatches(outline.state_dict(), weights):
        lists = "; ".join(f"{kind}: {_list(keys)}" for kind, keys in wrong.items())
        raise ValueError(f"{path}: the weights do not fit the network; {lists}")
    check_class_counts(path, outline)
    model = _build(weights, settings)
    model.load_state_dict(weights.state_dict)
    return model.eval()


def _build(weights: CheckpointWeights, settings: dict[str, Any]) -> Network:
    """Build the network of some weights; raise ValueError that names their file."""
    try:
        return NetworkBuilder(weights, settings).build(weights.kind)
    except Exception as error:  # sizes that no network has fail in any way
        why = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, ValueError) and why.startswith(str(weights.path)):
            raise
        raise ValueError(f"{weights.path}: not the weights of a network of ours ({why})") from error
