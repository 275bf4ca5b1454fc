"""Stops between steps and within them, so that nothing of the training is lost."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.call import _interrupt
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.multiprocessing import ProcessExitedException

from recon.callbacks.checkpoints import disable_save_on_exception, print_resume_hint


class BufferSnapshot:
    """Batch statistics as they were before a step, for one that ends without its weights."""

    def __init__(self, module: LightningModule) -> None:
        kept = module.state_dict().keys()
        self._buffers = [buffer for name, buffer in module.named_buffers() if name in kept]
        self._before: list[Tensor] | None = None

    def capture(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]

    @property
    def is_captured(self) -> bool:
        """Whether there is something to put back."""
        return self._before is not None

    def discard(self) -> None:
        self._before = None

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered, unless it was forgotten since."""
        for buffer, before in zip(self._buffers, self._before or self._buffers, strict=True):
            buffer.copy_(before)


class BeforeOptimizerStepError(ValueError):
    """Raised before the optimizer touched the weights."""


def _spawned() -> bool:
    """Tell whether another process of Python started this one to work for it."""
    return multiprocessing.parent_process() is not None


def _stopped_by(number: int) -> BaseException:
    """Return what ends a training that a signal asked to stop.

    A process that Lightning spawned ends with the code of the signal, which `heard` knows again:
    it takes one that is interrupted for one that is done, and waits for its results.
    """
    if number == signal.SIGINT and not _spawned():
        return KeyboardInterrupt()
    return SIGTERMException(128 + number)


@contextmanager
def forward_signals(trainer: Trainer) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to processes that a training spawns, and wait for their answer.

    Raises SystemExit of code 1 for Ctrl-C, as Lightning does in one process, and of 143.
    """
    launcher, asked = trainer.strategy.launcher, list[int]()
    main = threading.current_thread() is threading.main_thread()
    if not main or not isinstance(launcher, _MultiProcessingLauncher):
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        # Ctrl-C reaches all processes of a terminal by itself, and of two the second stops at once.
        launcher.kill(signal.SIGTERM)

    before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except ProcessExitedException as error:
        code = asked[0] if asked else error.exit_code - 128
        if code not in (signal.SIGINT, signal.SIGTERM):
            raise
        raise SystemExit(1 if code == signal.SIGINT else 128 + code) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class GracefulStop(Callback):
    """On Ctrl-C end the step and stop before the next; a second one stops now.

    Of several processes, SIGTERM is answered likewise, and all stop before the same step, whichever
    of them are told. Lightning's own answer begins an exchange between processes at once, which may
    meet another one half way and hang.

    A step that is cut short, by an error too, leaves batch statistics without the weights that
    belong to them: they are put back before anything is saved. Where the optimizer was at work
    already, nothing is saved: the checkpoint before it stands, and repeats what came since.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._statistics = BufferSnapshot(pl_module)
        self._asked, self._torn = 0, False
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM)[: min(trainer.world_size, 2)]:
                self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == self._asked == signal.SIGINT:
            raise _stopped_by(signal.SIGINT)
        self._asked = number

    def _asked_of_any(self, trainer: Trainer) -> int:
        """Return the signal by which one of the processes was asked to stop, 0 where none was."""
        if trainer.world_size == 1:
            return self._asked
        told = torch.tensor(self._asked, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(told, reduce_op="max"))

    def _stop(self, trainer: Trainer, asked: int) -> NoReturn:
        error = _stopped_by(asked)
        if _spawned():  # where Lightning tells no callback
            _interrupt(trainer, error)
            print_resume_hint(trainer)
        raise error

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # Resumed from between two steps, Lightning counts one too many for its loggers.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if asked := self._asked_of_any(trainer):
            # It is not done with an epoch of which the last batch is still to come.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
            self._stop(trainer, asked)
        self._statistics.capture()
        self._torn = False

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._torn = True

    def on_train_batch_end(self, *_: Any) -> None:
        self._statistics.discard()
        self._torn = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if asked := self._asked_of_any(trainer):
            self._stop(trainer, asked)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not hasattr(self, "_statistics"):
            return
        if self._torn and not isinstance(exception, BeforeOptimizerStepError):
            disable_save_on_exception(trainer)
        elif self._statistics.is_captured:
            self._statistics.restore()
            # Of an epoch's last batch Lightning would keep that it is done.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
