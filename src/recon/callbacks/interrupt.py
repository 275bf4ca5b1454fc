"""Ctrl-C between steps, so that nothing of the training is lost."""

import signal
import threading
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class FinishStep(Callback):
    """On Ctrl-C end the step, stop before the next, and say how to go on; a second one stops now.

    A step that is cut short leaves batch statistics without the weights that belong to them.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked, self._before = False, None
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # Resumed from between two steps, Lightning counts one too many for its loggers.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if self._asked:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        saving = trainer.checkpoint_callback
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if stopped and trainer.is_global_zero and isinstance(saving, ModelCheckpoint):
            last = f"{saving.dirpath}/{saving.CHECKPOINT_NAME_LAST}{saving.FILE_EXTENSION}"
            print(f"\nstopped after {trainer.global_step} steps; go on with ckpt_path={last}")
