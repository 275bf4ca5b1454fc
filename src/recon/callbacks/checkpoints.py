"""Save checkpoints atomically, keep the best and the last one, and find one to resume from."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from recon.checkpoints.reader import read_checkpoint
from recon.utils.atomic_write import write_atomic
from recon.utils.printable import format_count

LAST_CHECKPOINT = ModelCheckpoint.CHECKPOINT_NAME_LAST + ModelCheckpoint.FILE_EXTENSION
PREVIOUS_CHECKPOINT = "previous.ckpt"
"""Name of the backup of the last.ckpt that was replaced: there are always two checkpoints."""
HPC_CHECKPOINT_GLOB = "hpc_ckpt_*.ckpt"
"""Checkpoints that a job saves in the run's folder before the cluster stops it."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read them without executing their code.

    Lightning writes to the system's temporary folder and moves the file. Across disks the move is
    a copy, and a kill leaves a truncated file under its final name.
    """

    def __init__(self) -> None:
        self.saved_steps: dict[str, int] = {}
        """Global steps of the checkpoints that this run saved and can be resumed from, by path."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        target.parent.mkdir(parents=True, exist_ok=True)
        backup = target.with_name(PREVIOUS_CHECKPOINT) if target.name == LAST_CHECKPOINT else None
        # Checkpoints of a requeued job are in the run's folder, all others in its subfolder.
        last_paths = (
            target.with_name(LAST_CHECKPOINT),
            target.parent / "checkpoints" / LAST_CHECKPOINT,
        )
        hint = "and start again: nothing was saved before"
        if last := next((path for path in last_paths if path.is_file()), None):
            hint = f"and resume with ckpt_path={last}, which is intact"
        write_atomic(target, buffer.getbuffer(), hint, backup)
        # Training cannot be resumed from weights only, saved by option or by spawned processes.
        if "optimizer_states" in checkpoint:
            self.saved_steps[str(target)] = checkpoint["global_step"]

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class AtomicCheckpoints(Callback):
    """Save checkpoints by `AtomicCheckpointIO`, and flush logged metrics before each."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()


def find_intact_checkpoint(path: Path) -> Path:
    """Return a checkpoint to resume from: `path`, or for a damaged last.ckpt the newest intact one.

    The newest has the highest global step; file times are not used. Raises
    FileNotFoundError or ValueError that names the missing or damaged file if there is no other.
    """
    try:
        read_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        steps = {
            other: read_global_step(other) for other in path.parent.glob("*.ckpt") if other != path
        }
        if path.name != LAST_CHECKPOINT or max(steps.values(), default=-1) < 0:
            raise
        newest = max(steps, key=lambda other: (steps[other], other.name))
        print(f"{error}\nresuming from {newest} instead, saved at step {steps[newest]}")
        return newest
    return path


def read_global_step(path: Path) -> int:
    """Return the global step of a checkpoint, -1 if it is damaged or has none."""
    try:
        step = read_checkpoint(path).get("global_step")
    except ValueError:
        return -1
    return step if isinstance(step, int) else -1


def print_resume_hint(trainer: Trainer) -> None:
    """Print the step at which training stopped, and the checkpoint to resume it from."""
    saving, checkpoint_io = trainer.checkpoint_callback, trainer.strategy.checkpoint_io
    if not isinstance(saving, ModelCheckpoint) or not isinstance(checkpoint_io, AtomicCheckpointIO):
        return
    last = f"{saving.dirpath}/{LAST_CHECKPOINT}"
    steps = {path: step for path, step in checkpoint_io.saved_steps.items() if Path(path).is_file()}
    if trainer.is_global_zero and steps:
        path = max(steps, key=lambda path: (steps[path], path == last))
        age = "" if steps[path] == trainer.global_step else f", saved at step {steps[path]}"
        message = f"stopped after {format_count(trainer.global_step, 'step')}; "
        message += f"resume with ckpt_path={path}{age}"
        print(f"\n{message}", flush=True)


def disable_save_on_exception(trainer: Trainer) -> None:
    """Save no checkpoint when the next exception ends training."""
    for saving in trainer.checkpoint_callbacks:
        if isinstance(saving, ModelCheckpoint):
            saving.save_on_exception = False


class SelectedCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint by a metric, even if a resumed run has another folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastCheckpoint(ModelCheckpoint):
    """Save last.ckpt at the end of each epoch and when a run stops, with or without a selection."""

    def __init__(self, dirpath: str | Path) -> None:
        super().__init__(
            dirpath,
            filename=self.CHECKPOINT_NAME_LAST,
            save_on_exception=True,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        return type(self).__name__
