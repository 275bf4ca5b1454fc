"""Stop training at a non-finite loss or gradient, or skip the step, and name the samples."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from recon.callbacks.graceful_stop import BeforeOptimizerStepError, BufferSnapshot
from recon.data.batch import Batch
from recon.tasks.training_mode import evaluation_mode
from recon.utils.atomic_write import write_atomic
from recon.utils.printable import format_count

ACTIONS = ("stop", "skip")
MAX_NAMED_SAMPLES = 5
"""Maximum number of samples in a message."""
NONFINITE_HINT = "lower optimizer.lr, set trainer.gradient_clip_val=1 or trainer.precision=32-true"


class FiniteGuard(Callback):
    """Check loss and gradient before each optimizer step, and act if they are not finite.

    With `action="stop"` raises ValueError that names the samples. `"skip"` skips the step: weights,
    optimizer moments and BatchNorm statistics stay unchanged, and the step is counted. More than
    `max_consecutive` skipped steps in a row raise ValueError. The batches of such steps are written
    to `dump_dir` if it is set. With 16-bit mixed precision the gradient scaler checks gradients
    instead. A gradient is not finite if its total norm is not, also if only the norm overflows.
    """

    def __init__(
        self, action: str = "stop", *, max_consecutive: int = 10, dump_dir: str | Path | None = None
    ) -> None:
        if action not in ACTIONS:
            raise ValueError(f"action must be {' or '.join(ACTIONS)}, got {action!r}")
        if max_consecutive < 0:
            raise ValueError(f"max_consecutive must be 0 or more, got {max_consecutive}")
        self.action, self.max_consecutive = action, max_consecutive
        self.dump_dir = None if dump_dir is None else Path(dump_dir)
        self.in_a_row = self.skipped = 0
        self._batches: list[tuple[Batch, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row, self.skipped = state_dict["in_a_row"], state_dict["skipped"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._snapshot, self._batches = BufferSnapshot(pl_module), []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if not self._batches:  # the first of the accumulated batches of a step
            self._snapshot.capture()
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self._batches.append((self._batch, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        batches, self._batches = self._batches, []
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        failed = [(batch, loss) for batch, loss in batches if not loss.isfinite()]
        is_nonfinite = bool(failed)
        if not is_nonfinite and getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            is_nonfinite = not get_total_norm(gradients).isfinite()
        if trainer.world_size > 1:  # all processes must make the same decision
            is_nonfinite = trainer.strategy.reduce_boolean_decision(is_nonfinite, all=False)
        if not is_nonfinite:
            self.in_a_row = 0
            return
        # Restore first: with the statistics of this step, every single sample would be non-finite.
        self._snapshot.restore()
        reason = f"the loss is {float(failed[0][1])}" if failed else "the gradient is not finite"
        self._report_step(trainer, pl_module, reason, [batch for batch, _ in failed or batches])
        for parameter in parameters:  # the optimizer skips parameters without a gradient
            parameter.grad = None

    def _report_step(
        self, trainer: Trainer, module: LightningModule, reason: str, batches: list[Batch]
    ) -> None:
        """Name the samples, write batches to `dump_dir`, and raise unless steps are skipped."""
        step = trainer.global_step
        if trainer.world_size > 1:  # a forward pass for each sample might wait for other processes
            names = [
                name for batch in batches for name in find_nonfinite_samples(batch) or batch["id"]
            ]
        else:
            names = [name for batch in batches for name in find_offending_samples(module, batch)]
        unnamed = len(names) - MAX_NAMED_SAMPLES
        more = f" and {unnamed} more" if unnamed > 0 else ""
        message = f"step {step}: {reason}; samples: {', '.join(names[:MAX_NAMED_SAMPLES])}{more}"
        if self.dump_dir is not None and names:
            path = self.dump_dir / f"step-{step:06d}-process-{trainer.global_rank}.pt"
            plain_batches = [_detach_batch(batch) for batch in batches]
            _write_dump(path, {"said": message, "samples": names, "batches": plain_batches})
            message += f"; written to {path}"
        self.in_a_row += 1
        if self.action == "stop":
            alternative = "or skip such steps with callbacks/guard=skip"
            raise BeforeOptimizerStepError(f"{message}: {NONFINITE_HINT}, {alternative}")
        if self.in_a_row > self.max_consecutive:
            raise BeforeOptimizerStepError(
                f"{message}: more than {self.max_consecutive} such steps in a row: {NONFINITE_HINT}"
            )
        self.skipped += 1
        warnings.warn(f"skipped ({self.skipped}): {message}", stacklevel=2)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.skipped:
            steps = format_count(self.skipped, "step")
            warnings.warn(f"skipped {steps} in all: not finite", stacklevel=2)


def find_nonfinite_samples(batch: Batch) -> list[str]:
    """Return the ids of the samples that contain non-finite values."""
    is_finite = torch.ones(len(batch["id"]), dtype=torch.bool)
    for value in batch.values():
        if isinstance(value, Tensor) and value.is_floating_point():
            is_finite &= value.detach().flatten(1).isfinite().all(1).cpu()
    return [
        name for name, finite in zip(batch["id"], is_finite.tolist(), strict=True) if not finite
    ]


def find_offending_samples(module: LightningModule, batch: Batch) -> list[str]:
    """Return the ids of the samples that cause a non-finite loss or gradient.

    These are the samples with non-finite values. If there are none, these are the samples whose own
    loss or gradient is not finite. If there are none either, these are all samples of the batch.
    The module is not changed.
    """
    if nonfinite := find_nonfinite_samples(batch):
        return nonfinite
    names = batch["id"]
    with _without_side_effects(module):
        offending = [
            name
            for row, name in enumerate(names)
            if not _has_finite_loss_and_gradient(module, _select_sample(batch, row))
        ]
    return offending or list(names)


def _select_sample(batch: Batch, row: int) -> Batch:
    """Return a batch of one sample; values without one entry per sample stay unchanged."""
    num_samples, values = len(batch["id"]), cast(dict[str, Any], batch)
    sample = {k: v[row : row + 1] for k, v in values.items() if _batch_length(v) == num_samples}
    return cast(Batch, {**values, **sample})


def _batch_length(value: Any) -> int:
    """Return the length of a list or tensor, -1 for any other value."""
    has_length = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
    return len(value) if has_length else -1


def _has_finite_loss_and_gradient(module: LightningModule, batch: Batch) -> bool:
    """Tell whether loss and gradient of a batch are finite."""
    loss = cast(Tensor, module.training_step(batch, 0))
    parameters = [p for p in module.parameters() if p.requires_grad]
    per_parameter = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = [gradient for gradient in per_parameter if gradient is not None]
    return bool(loss.isfinite()) and bool(get_total_norm(gradients).isfinite())


@contextmanager
def _without_side_effects(module: LightningModule) -> Iterator[None]:
    """Run a module without changing BatchNorm statistics, random state or logs."""
    log_methods = ("log", "log_dict")
    for name in log_methods:
        setattr(module, name, lambda *_, **__: None)
    try:
        with evaluation_mode(module), torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        for name in log_methods:
            delattr(module, name)


def _detach_batch(batch: Batch) -> dict[str, Any]:
    """Return a batch of plain CPU tensors."""
    return {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in batch.items()}


def _write_dump(path: Path, content: Mapping[str, Any]) -> None:
    """Save the batches of a non-finite step for `torch.load`."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getbuffer())
