"""How checkpoints are written and read, which are kept, and what a run goes on from."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from recon.checkpoints.reader import read_checkpoint
from recon.utils.atomic_write import write_atomic

LAST_CHECKPOINT = ModelCheckpoint.CHECKPOINT_NAME_LAST + ModelCheckpoint.FILE_EXTENSION
PREVIOUS_CHECKPOINT = "previous.ckpt"
"""The one that last.ckpt replaced, so that two of them are there."""
HPC_CHECKPOINT_GLOB = "hpc_ckpt_*.ckpt"
"""What a job that the cluster warned leaves in the run's folder."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and read without executing anything.

    Lightning's own are written to the system's folder for temporary files and moved, which is a
    copy where that is another disk: a kill leaves half a file under its final name.
    """

    def __init__(self) -> None:
        self.saved_steps: dict[str, int] = {}
        """Steps that files of this run hold which a training can go on from, by path."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        target.parent.mkdir(parents=True, exist_ok=True)
        earlier = target.with_name(PREVIOUS_CHECKPOINT) if target.name == LAST_CHECKPOINT else None
        places = (
            target.with_name(LAST_CHECKPOINT),
            target.parent / "checkpoints" / LAST_CHECKPOINT,
        )  # or that of SAVED
        cure = "and start again: nothing was saved before"
        if last := next((place for place in places if place.is_file()), None):
            cure = f"and go on with ckpt_path={last}, which is as it was"
        write_atomic(target, buffer.getbuffer(), cure, earlier)
        if "optimizer_states" in checkpoint:  # not so bare weights, by option or of spawned ones
            self.saved_steps[str(target)] = checkpoint["global_step"]

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class AtomicCheckpoints(Callback):
    """Have checkpoints written by `WholeCheckpoints`, and metrics on the disk before each."""

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
    """Return a checkpoint to resume from: where last.ckpt is damaged, the newest whole one beside.

    The newest is the one of most steps, whatever the clock says. Raises FileNotFoundError or
    ValueError that names a file that is missing or damaged, where no other will do.
    """
    try:
        read_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        steps = {
            other: read_global_step(other) for other in path.parent.glob("*.ckpt") if other != path
        }
        if path.name != LAST_CHECKPOINT or max(steps.values(), default=-1) < 0:
            raise
        found = max(steps, key=lambda other: (steps[other], other.name))
        print(f"{error}\ngoing on from {found} instead, of step {steps[found]}")
        return found
    return path


def read_global_step(path: Path) -> int:
    """Return how many steps a checkpoint holds, -1 where it is damaged or none."""
    try:
        steps = read_checkpoint(path).get("global_step")
    except ValueError:
        return -1
    return steps if isinstance(steps, int) else -1


def print_resume_hint(trainer: Trainer) -> None:
    """Print after how many steps a training stopped, and what it can be resumed from."""
    saving, files = trainer.checkpoint_callback, trainer.strategy.checkpoint_io
    if not isinstance(saving, ModelCheckpoint) or not isinstance(files, AtomicCheckpointIO):
        return
    last = f"{saving.dirpath}/{LAST_CHECKPOINT}"
    held = {path: steps for path, steps in files.saved_steps.items() if Path(path).is_file()}
    if trainer.is_global_zero and held:
        path = max(held, key=lambda path: (held[path], path == last))
        older = "" if held[path] == trainer.global_step else f", of step {held[path]}"
        said = f"stopped after {trainer.global_step} steps; go on with ckpt_path={path}{older}"
        print(f"\n{said}", flush=True)


def disable_save_on_exception(trainer: Trainer) -> None:
    """Let what ends a training save nothing."""
    for saving in trainer.checkpoint_callbacks:
        if isinstance(saving, ModelCheckpoint):
            saving.save_on_exception = False


class SelectedCheckpoint(ModelCheckpoint):
    """Keep the best by a measure, and know it again where a resumed run has another folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastCheckpoint(ModelCheckpoint):
    """Keep last.ckpt, the end of each epoch or where a run was stopped, whatever else is kept."""

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
