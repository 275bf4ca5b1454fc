"""Record training curves in memory and in checkpoints, so that resumed runs continue them."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

Curves = dict[str, dict[int, float]]
"""Logged values by metric name, then by global step."""


class History(Callback):
    """Record `train/` metrics every `log_every_n_steps`, and each value of `val/` and `svm/`."""

    def __init__(self) -> None:
        self.curves: Curves = {}

    def state_dict(self) -> dict[str, Any]:
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = state_dict["curves"]

    def _record_metrics(self, trainer: Trainer, *prefixes: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefixes):
                # With accumulated gradients, the last batch of a step overwrites the earlier ones.
                curve = self.curves.setdefault(name.removeprefix("train/"), {})
                curve[trainer.global_step] = float(value)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval and trainer.global_step % interval == 0:  # 0 logs nothing
            self._record_metrics(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._record_metrics(trainer, "val/")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_metrics(trainer, "svm/")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_metrics(trainer, "svm/")  # of the previous epoch


def get_curves(trainer: Trainer) -> Curves:
    """Return the curves of a trainer's `History`, an empty dictionary without this callback."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    histories = [callback for callback in callbacks if isinstance(callback, History)]
    return histories[0].curves if histories else {}
