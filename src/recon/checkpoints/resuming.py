"""Check that training can be resumed from a checkpoint, under the options of the new run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from recon.checkpoints.loading import find_mismatches
from recon.checkpoints.reader import METADATA_KEY, CheckpointWeights, read_checkpoint
from recon.data.datamodule import PointCloudDataModule
from recon.data.epoch_position import EpochPosition, digest_ids

STATE_KEY = "recon_training"
"""Entry of a checkpoint with the position of training in samples and the options of the run."""
FIXED_OPTIONS = {
    "seed": "the order of samples and their augmentations depend on it",
    "data.seed": "the order of samples and their augmentations depend on it",
    "eval.selection": "it decides which samples are for training",
    "data._target_": "it decides which samples are for training",
    "data.split": "it decides which samples are for training",
    "data.val_share": "it decides which samples are for training",
    "data.fraction": "it decides which samples are for training",
    "data.fold": "it decides which samples are for training",
    "task._target_": "another student has other losses",
    "protocol": "it decides which weights are trained",
    "model": "the weights belong to this network",
    "task.model": "the weights belong to this network",
    "num_classes": "the weights belong to this network",
    "num_object_classes": "the weights belong to this network",
    "label_level": "the weights belong to this network",
    "projection_dims": "the weights belong to this network",
    "checkpoint": "a resumed run has the weights of its own checkpoint",
    "optimizer._target_": "its stored moments belong to this optimizer",
}
"""Options, or groups of them, that may not change on resuming, and why. All others take effect."""
CHANGEABLE_NETWORK_OPTIONS = ("drop_path", "checkpoint_activations", "checkpoint")
"""Options within the groups of `FIXED_OPTIONS` that may change: weights do not depend on them."""
UNREPORTED_OPTIONS = (
    *("task", "callbacks", "logger", "transform", "view", "eval", "output_dir", "started"),
    *("ckpt_path", "trainer.default_root_dir", "scheduler", "hydra", "data.transform"),
)
"""Options that follow from others or do not affect training: changes of them are not printed."""
MAX_REPORTED_CHANGES = 8
TRAINING_STATE_TYPES: dict[str, type] = {
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
}
"""Entries of a checkpoint that resuming needs, with their types."""


def check_resumable(
    path: Path,
    task: nn.Module,
    data: PointCloudDataModule | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Raise ValueError if training of `task` cannot be resumed from a file.

    Names an option among `options`, the resolved configuration, that may not differ from the one
    stored in the file, and the limit that leaves nothing to train. `data` must have the same
    training samples.
    """
    checkpoint = read_checkpoint(path)
    if METADATA_KEY not in checkpoint or "loops" not in checkpoint:
        raise ValueError(f"{path}: has no training state: resume from <run>/checkpoints/last.ckpt")
    for name, kind in TRAINING_STATE_TYPES.items():
        if not isinstance(checkpoint.get(name), kind):
            raise ValueError(
                f"{path}: its `{name}` is not that of a training checkpoint: "
                "resume from <run>/checkpoints/last.ckpt"
            )
    weights = CheckpointWeights(path, checkpoint["state_dict"], has_official_keys=False)
    if mismatches := find_mismatches(task.state_dict(), weights):
        counts = "; ".join(f"{len(keys)} {kind}, e.g. {keys[0]}"
                           for kind, keys in mismatches.items())  # fmt: skip
        raise ValueError(
            f"{path}: from a run with another network or student ({counts}): resume with "
            "the options of that run, see config.yaml in its folder"
        )
    state = checkpoint.get(STATE_KEY, {})
    _check_options(path, find_changes(state.get("options", {}), options or {}))
    if "position" in state:
        position = EpochPosition(**state["position"])
        _check_samples(path, position, data)
        _check_limits(path, position, checkpoint["global_step"], (options or {}).get("trainer", {}))


def find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the options that both configurations have with different values, by dotted name."""
    new_values = dict(_flatten(new))
    return {
        name: (value, new_values[name])
        for name, value in _flatten(old)
        if name in new_values and new_values[name] != value
    }


def _flatten(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of a configuration that are no mappings, by dotted name."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def find_fixed_rule(option: str) -> str | None:
    """Return the entry of `FIXED_OPTIONS` that forbids a change of an option, None if none does."""
    parts = option.split(".")
    if parts[-1] in CHANGEABLE_NETWORK_OPTIONS and len(parts) > 1:
        return None
    prefixes = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return next((prefix for prefix in prefixes if prefix in FIXED_OPTIONS), None)


def _check_options(path: Path, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ValueError that names the first option that may not change."""
    for name in sorted(changes, key=lambda name: (name.startswith("task."), name.count("."))):
        old, new = changes[name]
        rule = find_fixed_rule(name)
        if rule is None or (rule == "checkpoint" and new is None):
            continue
        raise ValueError(
            f"{name}={new}: cannot change on resuming, {path} was trained with {name}={old}: "
            f"{FIXED_OPTIONS[rule]}. Set {name}={old}, or start a new run from these weights with "
            f"checkpoint={path} instead of ckpt_path"
        )


def _check_samples(path: Path, position: EpochPosition, data: PointCloudDataModule | None) -> None:
    """Raise ValueError if the training samples are not those of the stored run."""
    if data is not None and digest_ids(data.dataset.ids) != position.ids_digest:
        raise ValueError(
            f"{path}: was trained on other samples than the {len(data.dataset):,} of "
            f"{type(data).__name__}, split {data.split!r}: resume with the data options of that "
            "run (config.yaml in its folder), or start a new run from these weights with "
            f"checkpoint={path} instead of ckpt_path"
        )


def _check_limits(
    path: Path, position: EpochPosition, steps: int, limits: Mapping[str, Any]
) -> None:
    """Raise ValueError if the run has trained for longer than a limit already."""
    epochs = position.epoch + position.is_complete
    for name, done in (("max_epochs", epochs), ("max_steps", steps)):
        limit = limits.get(name)
        if isinstance(limit, int) and 0 <= limit < done:
            raise ValueError(
                f"trainer.{name}={limit}: {path} was trained for {done} already: set at least "
                f"{done}, more to train on"
            )


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the changed options for a message, empty if there are none."""
    texts = [
        f"{name} {old} -> {new}"
        for name, (old, new) in changes.items()
        if not any(name == skip or name.startswith(f"{skip}.") for skip in UNREPORTED_OPTIONS)
    ]
    more = f" and {len(texts) - MAX_REPORTED_CHANGES} more"
    listed = ", ".join(texts[:MAX_REPORTED_CHANGES])
    return listed + (more if len(texts) > MAX_REPORTED_CHANGES else "")
