"""Show one progress bar for the whole training, with the remaining time."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from recon.utils.progress import ProgressCounter
from recon.utils.run_log import write_log_line

MAX_LOG_LINES = 10
"""Maximum number of progress lines in the log of a run without a terminal."""


def _build_progress() -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[losses]}"),
        speed_estimate_period=120,
    )


class TrainingProgressBar(ProgressBar):
    """Show epoch, losses, elapsed and remaining time; without a terminal print a few lines."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled, self._task = True, TaskID(0)
        self._progress: Progress | None = None
        self._test_counter: ProgressCounter | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled:
            return
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._epochs = epochs
        self._progress = _build_progress()  # not in __init__: it cannot be pickled for workers
        limits = [epochs * self.total_train_batches] if epochs else []
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
        self._total_batches = min(limits, default=None)
        num_done = trainer.fit_loop.total_batch_idx + 1
        self._task = self._progress.add_task(
            "training", total=self._total_batches, completed=num_done, losses=""
        )
        if self._progress.console.is_terminal:
            self._progress.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._progress is None:
            return
        metrics = self.get_metrics(trainer, pl_module)
        losses = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float))
        epoch = f"epoch {trainer.current_epoch + 1}/{self._epochs or '?'}"
        num_done = trainer.fit_loop.total_batch_idx + 1
        self._progress.update(self._task, completed=num_done, description=epoch, losses=losses)
        if self._is_line_due(num_done):
            task = self._progress.tasks[-1]
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining is not None else ""
            line = f"{epoch}: {losses}, {task.elapsed or 0:.0f} s elapsed{left}"
            if self._progress.console.is_terminal:
                write_log_line(line)
            else:
                self._progress.console.print(line)

    def _is_line_due(self, num_done: int) -> bool:
        """Tell whether to print a line after `num_done` batches."""
        total = self._total_batches
        if not total:
            return num_done % 100 == 0
        return num_done * MAX_LOG_LINES // total > (num_done - 1) * MAX_LOG_LINES // total

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            total = int(sum(trainer.num_test_batches))
            self._test_counter = ProgressCounter("testing", total, "batches")
            self._test_counter.__enter__()

    def on_test_batch_end(self, *_: Any) -> None:
        if self._test_counter is not None:
            self._test_counter.advance()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._test_counter is not None:
            self._test_counter.__exit__()
            self._test_counter = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        exception: BaseException,
    ) -> None:
        self._stop()
