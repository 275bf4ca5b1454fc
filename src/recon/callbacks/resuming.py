"""Store the position and options of training in checkpoints, and resume exactly from them."""

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from recon.checkpoints.resuming import STATE_KEY, describe_changes, find_changes
from recon.data.datamodule import PointCloudDataModule
from recon.data.epoch_position import (
    EpochPosition,
    digest_ids,
    find_resumed_epoch,
    rewrite_loops,
)
from recon.data.sampler import ResumableDistributedSampler


class ExactResume(Callback):
    """Resume at the next sample, under the options of the resumed run.

    Lightning counts batches, and closes an epoch that `max_steps`, `max_time` or an early stop
    ends. This callback stores how many samples of the epoch were used by the steps that were
    taken. On resuming it continues with the samples left, also with another batch size, number of
    processes or number of accumulated batches. `options`, the resolved configuration, are stored
    in checkpoints for `check_resumable`. `trainer.max_time` counts from the start of each run, and
    the patience of early stopping is that of the options.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        self._position: EpochPosition | None = None
        self._num_batches = self._total_batches = 0
        self._is_validation_due = False
        self._ids_digest = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and (data := _get_datamodule(trainer)) is not None:
            data.resumed_epoch, self._position = None, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _get_datamodule(trainer)
        self._ids_digest = "" if data is None else digest_ids(data.dataset.ids)
        self._start_epoch(trainer)
        if self._is_validation_due:
            _validate_previous_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_epoch(trainer)

    def _start_epoch(self, trainer: Trainer) -> None:
        self._num_batches = 0
        self._record_position(trainer, is_complete=False)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._num_batches += 1
        loop = trainer.fit_loop.epoch_loop
        if not loop._should_accumulate():  # the optimizer took a step
            is_complete = loop._num_ready_batches_reached()
            self._record_position(trainer, is_complete=is_complete)
            self._is_validation_due = is_complete

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_validation_due = False

    def _record_position(self, trainer: Trainer, *, is_complete: bool) -> None:
        data = _get_datamodule(trainer)
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if data is None or not isinstance(sampler, ResumableDistributedSampler):
            return
        layout = data.epoch_layout(trainer)
        resumed = data.resumed_epoch
        limit = layout.batch_limit if resumed is None else resumed.batch_limit
        consumed = sampler.start + self._num_batches * layout.global_batch
        self._total_batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self._position = EpochPosition(
            sampler.epoch,
            min(consumed, sampler.stop),
            layout.epoch_size,
            is_complete,
            limit,
            self._ids_digest,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_validation_due = False
        data = _get_datamodule(trainer)
        if data is not None and (resumed := data.resumed_epoch) and not resumed.is_regular:
            # Lightning keeps the number of batches of the first epoch unless it loads data anew.
            trainer.fit_loop._combined_loader = None
            data.resumed_epoch = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state: dict[str, Any] = {"options": self.options}
        if self._position is not None:
            state |= {"position": self._position._asdict(), "total_batches": self._total_batches}
            state["is_validation_due"] = self._is_validation_due
        checkpoint[STATE_KEY] = state

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state, data = checkpoint.get(STATE_KEY), _get_datamodule(trainer)
        if trainer.state.fn != "fit" or state is None:
            return
        _keep_callback_options(trainer, checkpoint["callbacks"])
        if data is None or "position" not in state:
            return
        step = checkpoint["global_step"]
        resumed = find_resumed_epoch(EpochPosition(**state["position"]), data.epoch_layout(trainer))
        rewrite_loops(checkpoint["loops"], resumed, state["total_batches"], step)
        data.resumed_epoch = resumed
        self._is_validation_due = not resumed.start and state["is_validation_due"]
        if resumed.batch_limit is not None:  # a share would be taken of the batches left
            trainer.limit_train_batches = resumed.batch_limit
        if trainer.is_global_zero and self.options:
            changes = describe_changes(find_changes(state["options"], self.options))
            place = f"epoch {resumed.epoch + 1}"
            if resumed.start:
                place += f", {resumed.start} of {resumed.stop} samples done"
            print(f"resuming at step {step}, {place}{'; ' if changes else ''}{changes}", flush=True)


def _validate_previous_epoch(trainer: Trainer) -> None:
    """Run the validation of the epoch that ended, if the checkpoint was saved just before it."""
    loop, epochs = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress.current
    epochs.completed -= 1
    loop._batches_that_stepped -= 1  # Lightning counts a step after its validation
    if trainer.enable_validation and loop._should_check_val_epoch():
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
    epochs.completed += 1
    loop._batches_that_stepped += 1


def _keep_callback_options(trainer: Trainer, states: dict[str, Any]) -> None:
    """Remove the options of callbacks from their stored states, so that those asked for hold."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            states.pop(callback.state_key, None)
        elif isinstance(callback, EarlyStopping) and callback.state_key in states:
            states[callback.state_key]["patience"] = callback.patience


def _get_datamodule(trainer: Trainer) -> PointCloudDataModule | None:
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, PointCloudDataModule) else None
