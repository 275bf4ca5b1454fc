"""What a loss or a gradient that is not finite does: nothing to the weights, and not in silence."""

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
from recon.utils.atomic_write import write_atomic

ACTIONS = ("stop", "skip")
MAX_NAMED_SAMPLES = 5
NONFINITE_HINT = "lower optimizer.lr, set trainer.gradient_clip_val=1 or trainer.precision=32-true"


class FiniteGuard(Callback):
    """Look at loss and gradient before each step of the optimizer; act where they are not finite.

    `stop` raises ValueError that names the samples. `skip` leaves the step out: weights, moments
    and batch statistics stay as they were, the step is counted; more than `limit` in a row stop.
    `dump` is a folder that the batches of such a step are written to. In mixed precision of 16 bits
    the gradient is the scaler's to watch. A gradient is taken for its norm: one that overflows is
    not finite.
    """

    def __init__(
        self, action: str = "stop", *, max_consecutive: int = 10, dump_dir: str | Path | None = None
    ) -> None:
        if action not in ACTIONS:
            raise ValueError(f"action must be {' or '.join(ACTIONS)}, got {action!r}")
        if max_consecutive < 0:
            raise ValueError(f"limit must be 0 or more, got {max_consecutive}")
        self.action, self.max_consecutive = action, max_consecutive
        self.dump_dir = None if dump_dir is None else Path(dump_dir)
        self.in_a_row = self.skipped = 0
        self._batches: list[tuple[Batch, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row, self.skipped = state_dict["in_a_row"], state_dict["skipped"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._statistics, self._batches = BufferSnapshot(pl_module), []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if not self._batches:  # of the first that add up to one step
            self._statistics.capture()
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
        wrong = [(batch, loss) for batch, loss in batches if not loss.isfinite()]
        bad = bool(wrong)
        if not bad and getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            bad = not get_total_norm(gradients).isfinite()
        if trainer.world_size > 1:  # all processes do the same
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if not bad:
            self.in_a_row = 0
            return
        self._statistics.restore()  # first: with statistics that took part no sample is finite
        what = f"the loss is {float(wrong[0][1])}" if wrong else "the gradient is not finite"
        self._act(trainer, pl_module, what, [batch for batch, _ in wrong or batches])
        for parameter in parameters:  # the optimizer passes over what has no gradient
            parameter.grad = None

    def _act(
        self, trainer: Trainer, module: LightningModule, what: str, batches: list[Batch]
    ) -> None:
        """Say what happened, write it down where asked to, and stop unless steps are skipped."""
        step = trainer.global_step
        if trainer.world_size > 1:  # asking for samples one by one might wait for the others
            names = [
                name for batch in batches for name in find_nonfinite_samples(batch) or batch["id"]
            ]
        else:
            names = [name for batch in batches for name in find_offending_samples(module, batch)]
        more = (
            f" and {len(names) - MAX_NAMED_SAMPLES} more" if len(names) > MAX_NAMED_SAMPLES else ""
        )
        said = f"step {step}: {what}; samples: {', '.join(names[:MAX_NAMED_SAMPLES])}{more}"
        if self.dump_dir is not None and names:
            path = self.dump_dir / f"step-{step:06d}-process-{trainer.global_rank}.pt"
            _write(path, {"said": said, "samples": names, "batches": [_plain(b) for b in batches]})
            said += f"; written to {path}"
        self.in_a_row += 1
        if self.action == "stop":
            other = "or leave such steps out with callbacks/guard=skip"
            raise BeforeOptimizerStepError(f"{said}: {NONFINITE_HINT}, {other}")
        if self.in_a_row > self.max_consecutive:
            raise BeforeOptimizerStepError(
                f"{said}: more than {self.max_consecutive} such steps in a row: {NONFINITE_HINT}"
            )
        self.skipped += 1
        warnings.warn(f"left out ({self.skipped}): {said}", stacklevel=2)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.skipped:
            warnings.warn(f"{self.skipped} steps were left out: not finite", stacklevel=2)


def find_nonfinite_samples(batch: Batch) -> list[str]:
    """Return the ids of samples that hold numbers which are not finite."""
    fine = torch.ones(len(batch["id"]), dtype=torch.bool)
    for value in batch.values():
        if isinstance(value, Tensor) and value.is_floating_point():
            fine &= value.detach().flatten(1).isfinite().all(1).cpu()
    return [name for name, good in zip(batch["id"], fine.tolist(), strict=True) if not good]


def find_offending_samples(module: LightningModule, batch: Batch) -> list[str]:
    """Return the ids of samples that are not finite or alone give a loss or gradient that is not.

    Those of all samples where it takes several of them. Nothing of the module changes.
    """
    if found := find_nonfinite_samples(batch):
        return found
    names = batch["id"]
    with _aside(module):
        found = [n for row, n in enumerate(names) if not _is_finite(module, _alone(batch, row))]
    return found or list(names)


def _alone(batch: Batch, row: int) -> Batch:
    count, values = len(batch["id"]), cast(dict[str, Any], batch)
    parts = {k: v[row : row + 1] for k, v in values.items() if _length(v) == count}
    return cast(Batch, {**values, **parts})


def _length(value: Any) -> int:
    sized = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
    return len(value) if sized else -1


def _is_finite(module: LightningModule, batch: Batch) -> bool:
    """Tell whether loss and gradient of a batch are finite."""
    loss = cast(Tensor, module.training_step(batch, 0))
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = [gradient for gradient in found if gradient is not None]
    return bool(loss.isfinite()) and bool(get_total_norm(gradients).isfinite())


@contextmanager
def _aside(module: LightningModule) -> Iterator[None]:
    """Let a module work without batch statistics, randomness or logs taking notice."""
    training, loggers = module.training, ("log", "log_dict")
    for name in loggers:
        setattr(module, name, lambda *_, **__: None)
    module.eval()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        module.train(training)
        for name in loggers:
            delattr(module, name)


def _plain(batch: Batch) -> dict[str, Any]:
    return {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in batch.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getbuffer())
