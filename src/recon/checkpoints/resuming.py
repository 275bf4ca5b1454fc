"""Check that training can be resumed from a checkpoint."""

from pathlib import Path

from torch import nn

from recon.checkpoints.loading import find_mismatches
from recon.checkpoints.reader import METADATA_KEY, CheckpointWeights, read_checkpoint

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


def check_resumable(path: Path, task: nn.Module) -> None:
    """Raise ValueError if training of `task` cannot be resumed from a file."""
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
