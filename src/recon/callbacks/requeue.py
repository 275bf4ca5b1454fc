"""A cluster's warning before it takes a job's machines: save between steps, and queue again."""

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
from recon.utils.scheduler_env import is_restarted

SLURM_SIGNAL, SUBMITIT_SIGNAL = signal.SIGUSR1, signal.SIGUSR2


class Requeue(Callback):
    """On SIGUSR1 under SLURM, or on submitit's SIGUSR2, end the step, save, queue again, and end.

    Lightning's own answer saves in the middle of a step, which leaves batch statistics without the
    weights that belong to them, and trains on while its processes are taken. All processes save at
    the same step. Where there is neither SLURM nor submitit, this does nothing.
    """

    def __init__(self) -> None:
        self._asked = self._watching = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked, self._before = False, {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            if isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment):
                self._before[SLURM_SIGNAL] = signal.signal(SLURM_SIGNAL, self._ask)
            if callable(signal.getsignal(SUBMITIT_SIGNAL)):
                self._before[SUBMITIT_SIGNAL] = signal.signal(SUBMITIT_SIGNAL, self._ask)
        # Of submitit's processes one may have its handler, and those that Lightning started none.
        watching = bool(self._before)
        self._watching = trainer.strategy.reduce_boolean_decision(watching, all=False)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._watching and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._leave(trainer)

    def _leave(self, trainer: Trainer) -> NoReturn:
        """Save, let the first process queue the job again, and end all of them."""
        # The cluster's, which follows: to answer it now would cut short what is being saved.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        folder = Path(trainer.default_root_dir)
        earlier = [*folder.glob(HPC_CHECKPOINT_GLOB)]
        # It is not done with an epoch of which the last batch is still to come.
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
        trainer.save_checkpoint(trainer._checkpoint_connector.hpc_save_path(str(folder)))
        disable_save_on_exception(trainer)
        if trainer.is_global_zero:
            for path in earlier:
                path.unlink(missing_ok=True)
            print(f"\nsaved after {trainer.global_step} steps", flush=True)
            if SUBMITIT_SIGNAL in self._before:
                self._before[SUBMITIT_SIGNAL](
                    SUBMITIT_SIGNAL, None
                )  # raises what ends this process
            else:
                print(_queue_again(), flush=True)
        raise SystemExit(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what a finished training resumes from: Lightning would test it instead."""
        if trainer.is_global_zero and self._before:
            for path in Path(trainer.default_root_dir).glob(HPC_CHECKPOINT_GLOB):
                path.unlink()


def _queue_again() -> str:
    """Have SLURM queue this job again; return what came of it."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return f"job {job} could not be queued again: scontrol: {error.strerror}"
    if done.returncode:
        return f"job {job} could not be queued again: {done.stderr.strip()}"
    return f"{done.stdout}queued again as job {job}, which goes on from there"


def find_requeue_checkpoint(folder: Path) -> Path | None:
    """Return what a job that the cluster started again goes on from: its checkpoint of most steps.

    None for a job that runs for the first time, or left none that is whole.
    """
    if not is_restarted():
        return None
    paths = [
        folder / "checkpoints" / LAST_CHECKPOINT,
        *folder.glob(HPC_CHECKPOINT_GLOB),
        *folder.glob("checkpoints/*.ckpt"),
    ]
    steps = {path: read_global_step(path) for path in paths if path.is_file()}
    found = max(steps, key=steps.__getitem__, default=None)
    return found if found is not None and steps[found] >= 0 else None
