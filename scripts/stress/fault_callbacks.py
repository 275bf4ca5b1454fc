"""Callbacks that inject a fault into a training step."""

import multiprocessing
import os
import signal
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class InjectFault(Callback):
    """Inject a fault at `step`, or at each step from `step` to `until`.

    `fault` is `memory`, `overflow`, `gradient` or `optimizer`; the last one changes a weight and
    then raises.
    """

    def __init__(self, fault: str, step: int, until: int | None = None) -> None:
        self.fault, self.steps = fault, range(step, 1 + (step if until is None else until))

    def _is_due(self, trainer: Trainer, fault: str) -> bool:
        return self.fault == fault and trainer.global_step in self.steps

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, _: int
    ) -> None:
        if self._is_due(trainer, "overflow"):
            batch["points"][1] *= 1e25

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        if self._is_due(trainer, "memory"):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    def on_after_backward(self, trainer: Trainer, module: LightningModule) -> None:
        if self._is_due(trainer, "gradient"):
            gradients = (p.grad for p in module.parameters() if p.grad is not None)
            next(gradients).fill_(torch.inf)

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer
    ) -> None:
        if self._is_due(trainer, "optimizer"):
            with torch.no_grad():
                next(module.parameters()).add_(1)
            raise RuntimeError("in the middle of the optimizer")


class KillWorker(Callback):
    """Kill the data-loading workers, like an operating system that is out of memory."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        for child in multiprocessing.active_children() if trainer.global_step == self.step else ():
            os.kill(child.pid or 0, signal.SIGKILL)
