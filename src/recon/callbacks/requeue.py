"""A cluster's warning before it takes a job's machines: save between steps, and queue again."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment


class Requeue(Callback):
    """On SIGUSR1 under SLURM end the step, then let Lightning save and requeue the job.

    Lightning does so in the middle of a step, which leaves batch statistics without the weights
    that belong to them. All processes save at the same step. Elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._requeue: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked, self._requeue = False, None
        slurm = isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment)
        if slurm and threading.current_thread() is threading.main_thread():
            self._requeue = signal.signal(signal.SIGUSR1, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not callable(self._requeue):
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._asked = False
            self._requeue(signal.SIGUSR1, None)
            if trainer.is_global_zero:
                print(f"\nsaved after {trainer.global_step} steps and queued again")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._requeue is not None:
            signal.signal(signal.SIGUSR1, self._requeue)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what a finished training resumes from: Lightning would test it instead."""
        if trainer.is_global_zero and callable(self._requeue):
            for path in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                path.unlink()
