"""Stops between steps and within them, so that nothing of the training is lost."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from recon.callbacks.checkpoints import save_no_more


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

    Of several processes, SIGTERM is answered likewise, and all stop before the same step, whichever
    of them are told. Lightning's own answer begins an exchange between processes at once, which may
    meet another one half way and hang.

    A step that is cut short, by an error too, leaves batch statistics without the weights that
    belong to them: they are put back before anything is saved. Where the optimizer was at work
    already, nothing is saved: the checkpoint before it stands, and repeats what came since.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._statistics = Statistics(pl_module)
        self._asked, self._torn = 0, False
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM)[: min(trainer.world_size, 2)]:
                self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = number

    def _stop(self, trainer: Trainer) -> None:
        """Stop where one of the processes was asked to."""
        asked = self._asked
        if trainer.world_size > 1:
            told = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(told, reduce_op="max"))
        if asked:
            # It is not done with an epoch of which the last batch is still to come.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
            raise SIGTERMException if asked == signal.SIGTERM else KeyboardInterrupt

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # Resumed from between two steps, Lightning counts one too many for its loggers.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        self._stop(trainer)
        self._statistics.remember()
        self._torn = False

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._torn = True

    def on_train_batch_end(self, *_: Any) -> None:
        self._statistics.forget()
        self._torn = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not hasattr(self, "_statistics"):
            return
        if self._torn and not isinstance(exception, BeforeStepError):
            save_no_more(trainer)
        elif self._statistics.kept:
            self._statistics.restore()
            # Of an epoch's last batch Lightning would keep that it is done.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
