"""Stops between steps and within them, so that nothing of the training is lost."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class Statistics:
    """Batch statistics as they were before a step, for one that ends without its weights."""

    def __init__(self, module: LightningModule) -> None:
        kept = module.state_dict().keys()
        self._buffers = [buffer for name, buffer in module.named_buffers() if name in kept]
        self._before: list[Tensor] | None = None

    def remember(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]

    @property
    def kept(self) -> bool:
        """Whether there is something to put back."""
        return self._before is not None

    def forget(self) -> None:
        self._before = None

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered, unless it was forgotten since."""
        for buffer, before in zip(self._buffers, self._before or self._buffers, strict=True):
            buffer.copy_(before)


class BeforeStepError(ValueError):
    """Raised before the optimizer touched the weights."""


class FinishStep(Callback):
    """On Ctrl-C end the step and stop before the next; a second one stops now.

    A step that is cut short, by an error too, leaves batch statistics without the weights that
    belong to them: they are put back before anything is saved. Where the optimizer was at work
    already, nothing is saved: the checkpoint before it stands, and repeats what came since.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._statistics = Statistics(pl_module)
        self._asked, self._before, self._torn = False, None, False
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
        self._statistics.remember()
        self._torn = False

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._torn = True

    def on_train_batch_end(self, *_: Any) -> None:
        self._statistics.forget()
        self._torn = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not hasattr(self, "_statistics"):
            return
        if self._torn and not isinstance(exception, BeforeStepError):
            for saving in trainer.checkpoint_callbacks:
                if isinstance(saving, ModelCheckpoint):
                    saving.save_on_exception = False
        elif self._statistics.kept:
            self._statistics.restore()
            # Of an epoch's last batch Lightning would keep that it is done.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
