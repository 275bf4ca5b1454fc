"""Stop training between two steps on Ctrl-C or SIGTERM, so that no step is lost."""

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
    """Copy a module's buffers (BatchNorm statistics) before a step, to undo an unfinished one."""

    def __init__(self, module: LightningModule) -> None:
        saved_names = module.state_dict().keys()
        self._buffers = [buffer for name, buffer in module.named_buffers() if name in saved_names]
        self._copies: list[Tensor] | None = None

    def capture(self) -> None:
        self._copies = [buffer.clone() for buffer in self._buffers]

    @property
    def is_captured(self) -> bool:
        """Whether there are copies to restore."""
        return self._copies is not None

    def discard(self) -> None:
        self._copies = None

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the captured values, unless they were discarded."""
        for buffer, copy in zip(self._buffers, self._copies or self._buffers, strict=True):
            buffer.copy_(copy)


def starts_optimizer_step(trainer: Trainer) -> bool:
    """Tell whether the batch that begins is the first one of an optimizer step.

    Training stops only before such a batch: the gradients of the others are not stored.
    """
    num_begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return (num_begun - 1) % trainer.accumulate_grad_batches == 0


class BeforeOptimizerStepError(ValueError):
    """Raised before the optimizer changed any weight."""


def _is_spawned() -> bool:
    """Tell whether Python's multiprocessing started this process."""
    return multiprocessing.parent_process() is not None


def _exception_for_signal(number: int) -> BaseException:
    """Return the exception that ends training after a signal.

    A process that Lightning spawned exits with the code of the signal, which `forward_signals`
    recognizes. Lightning treats an interrupted process as a finished one, and waits for its
    results.
    """
    if number == signal.SIGINT and not _is_spawned():
        return KeyboardInterrupt()
    return SIGTERMException(128 + number)


@contextmanager
def forward_signals(trainer: Trainer) -> Iterator[None]:
    """Forward Ctrl-C and SIGTERM to the processes that training spawns, and wait for them to end.

    Raises SystemExit with code 1 for Ctrl-C, as Lightning does in one process, and 143 for SIGTERM.
    """
    launcher, received = trainer.strategy.launcher, list[int]()
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or not isinstance(launcher, _MultiProcessingLauncher):
        yield
        return

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # Not SIGINT: a terminal sends it to all processes, and a second one stops them at once.
        launcher.kill(signal.SIGTERM)

    previous = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except ProcessExitedException as error:
        code = received[0] if received else error.exit_code - 128
        if code not in (signal.SIGINT, signal.SIGTERM):
            raise
        raise SystemExit(1 if code == signal.SIGINT else 128 + code) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class GracefulStop(Callback):
    """On Ctrl-C, finish the step and stop before the next; on a second Ctrl-C, stop at once.

    With several processes SIGTERM does the same, and all of them stop before the same step,
    whichever of them received the signal. Lightning's own handler starts a collective at once,
    which may meet another one in progress and hang.

    A step that is interrupted, also by an error or between the batches that it accumulates, has
    updated the BatchNorm statistics but not the weights. The statistics are restored before
    anything is saved. If the optimizer was already running, nothing is saved: the previous
    checkpoint stays, and a resumed run repeats the steps after it.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._snapshot = BufferSnapshot(pl_module)
        self._signal_number, self._in_optimizer_step = 0, False
        self._previous_handlers: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in (signal.SIGINT, signal.SIGTERM)[: min(trainer.world_size, 2)]:
                self._previous_handlers[number] = signal.signal(number, self._record_signal)

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        if number == self._signal_number == signal.SIGINT:
            raise _exception_for_signal(signal.SIGINT)
        self._signal_number = number

    def _reduce_signal_number(self, trainer: Trainer) -> int:
        """Return the number of a signal that any process received, 0 if there is none."""
        if trainer.world_size == 1:
            return self._signal_number
        number = torch.tensor(self._signal_number, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(number, reduce_op="max"))

    def _stop(self, trainer: Trainer, number: int) -> NoReturn:
        error = _exception_for_signal(number)
        if _is_spawned():  # Lightning calls no callback there
            _interrupt(trainer, error)
            print_resume_hint(trainer)
        raise error

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # After resuming between two steps, Lightning counts one step too many for its loggers.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if not starts_optimizer_step(trainer):
            return
        if number := self._reduce_signal_number(trainer):
            # The epoch is not finished if its last batch is still to come.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
            self._stop(trainer, number)
        self._snapshot.capture()
        self._in_optimizer_step = False

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._in_optimizer_step = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._in_optimizer_step = False
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            self._snapshot.discard()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A time limit or an early stop may come between the accumulated batches of a step.
        self._snapshot.restore()
        self._snapshot.discard()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if received := self._reduce_signal_number(trainer):
            self._stop(trainer, received)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not hasattr(self, "_snapshot"):
            return
        if self._in_optimizer_step and not isinstance(exception, BeforeOptimizerStepError):
            disable_save_on_exception(trainer)
        elif self._snapshot.is_captured:
            self._snapshot.restore()
            # For the last batch of an epoch, Lightning would save that the epoch is finished.
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
