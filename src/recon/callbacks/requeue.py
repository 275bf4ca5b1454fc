"""Save and requeue a SLURM or submitit job on the cluster's signal, and find its checkpoint."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from recon.callbacks.checkpoints import (
    HPC_CHECKPOINT_GLOB,
    LAST_CHECKPOINT,
    disable_save_on_exception,
    read_global_step,
)
from recon.callbacks.graceful_stop import starts_optimizer_step
from recon.utils.printable import format_count
from recon.utils.scheduler_env import is_restarted

SLURM_SIGNAL, SUBMITIT_SIGNAL = signal.SIGUSR1, signal.SIGUSR2


class Requeue(Callback):
    """On SIGUSR1 of SLURM or SIGUSR2 of submitit, finish the step, save, requeue the job and exit.

    Lightning's own handler saves in the middle of a step, when the BatchNorm statistics are updated
    but the weights are not. It also trains on while the cluster ends its processes. With this
    callback all processes save before the same step. Without SLURM and submitit it does nothing.
    """

    def __init__(self) -> None:
        self._is_warned = self._is_active = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_warned, self._previous_handlers = False, {}
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            if isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment):
                self._install_handler(SLURM_SIGNAL)
            if callable(signal.getsignal(SUBMITIT_SIGNAL)):
                self._install_handler(SUBMITIT_SIGNAL)
        # submitit's handler may be in one process only; processes that Lightning starts have none.
        has_handler = bool(self._previous_handlers)
        self._is_active = trainer.strategy.reduce_boolean_decision(has_handler, all=False)

    def _install_handler(self, number: signal.Signals) -> None:
        self._previous_handlers[number] = signal.signal(number, self._record_warning)

    def _record_warning(self, number: int, frame: FrameType | None) -> None:
        self._is_warned = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not self._is_active or not starts_optimizer_step(trainer):
            return
        if trainer.strategy.reduce_boolean_decision(self._is_warned, all=False):
            self._save_and_exit(trainer)

    def _save_and_exit(self, trainer: Trainer) -> NoReturn:
        """Save a checkpoint, requeue the job from the first process, and exit in all of them."""
        # The cluster sends SIGTERM next, which would interrupt saving.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        folder = Path(trainer.default_root_dir)
        old_checkpoints = [*folder.glob(HPC_CHECKPOINT_GLOB)]
        # The epoch is not finished if its last batch is still to come.
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
        trainer.save_checkpoint(trainer._checkpoint_connector.hpc_save_path(str(folder)))
        disable_save_on_exception(trainer)
        if trainer.is_global_zero:
            for path in old_checkpoints:
                path.unlink(missing_ok=True)
            print(f"\nsaved after {format_count(trainer.global_step, 'step')}", flush=True)
            if SUBMITIT_SIGNAL in self._previous_handlers:
                # The handler of submitit requeues the job, and raises to end this process.
                self._previous_handlers[SUBMITIT_SIGNAL](SUBMITIT_SIGNAL, None)
            else:
                print(_requeue_slurm_job(), flush=True)
        raise SystemExit(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the requeue checkpoints of a finished run: Lightning would test them instead."""
        if trainer.is_global_zero and self._previous_handlers:
            for path in Path(trainer.default_root_dir).glob(HPC_CHECKPOINT_GLOB):
                path.unlink()


def _requeue_slurm_job() -> str:
    """Requeue this SLURM job; return a message about the outcome."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        completed = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return f"job {job} could not be requeued: scontrol: {error.strerror}"
    if completed.returncode:
        return f"job {job} could not be requeued: {completed.stderr.strip()}"
    return f"{completed.stdout}requeued as job {job}, which will resume from this checkpoint"


def find_requeue_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that a restarted job resumes from: the one with the highest step.

    None if the cluster did not restart this job, or if no checkpoint is intact.
    """
    if not is_restarted():
        return None
    paths = [
        folder / "checkpoints" / LAST_CHECKPOINT,
        *folder.glob(HPC_CHECKPOINT_GLOB),
        *folder.glob("checkpoints/*.ckpt"),
    ]
    steps = {path: read_global_step(path) for path in paths if path.is_file()}
    newest = max(steps, key=steps.__getitem__, default=None)
    return newest if newest is not None and steps[newest] >= 0 else None
