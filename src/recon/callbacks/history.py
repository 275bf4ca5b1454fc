"""How a training went, step by step, kept through stops and resumes."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

Curves = dict[str, dict[int, float]]
"""Values by step, by name."""


class History(Callback):
    """Keep what is logged: `train/...` every `log_every_n_steps`, each validation, each probe."""

    def __init__(self) -> None:
        self.curves: Curves = {}

    def state_dict(self) -> dict[str, Any]:
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = state_dict["curves"]

    def _keep(self, trainer: Trainer, *beginnings: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(beginnings):
                # Of the batches that make up one step the last one stands.
                shown = name.removeprefix("train/")
                self.curves.setdefault(shown, {})[trainer.global_step] = float(value)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:  # 0 logs nothing
            self._keep(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._keep(trainer, "val/")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, "svm/")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, "svm/")  # of the epoch before


def get_curves(trainer: Trainer) -> Curves:
    """Return what a trainer's `History` kept; nothing where it has none."""
    kept = [callback for callback in trainer.callbacks if isinstance(callback, History)]  # type: ignore[attr-defined]
    return kept[0].curves if kept else {}
