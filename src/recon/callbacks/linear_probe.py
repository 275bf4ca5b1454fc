"""Evaluate the features by a linear SVM during pretraining."""

import torch
from lightning import Callback, LightningModule, Trainer

from recon.data.datamodule import PointCloudDataModule
from recon.data.transforms import Transform
from recon.tasks.feature_extraction import LinearProbe, extract_features
from recon.tasks.metrics import classification_scores
from recon.tasks.pretrain import Pretraining


class LinearProbeCallback(Callback):
    """Fit a linear SVM to the features every `every_n_epochs` and after the last epoch [1].

    It is fitted on the `split` of `data` and evaluated on its `val_split`, or on the `val_share`
    of `split` that is held out. Logs the overall accuracy as `svm/accuracy_<val_split>` or
    `svm/accuracy_held_out`, which callbacks.checkpoint can monitor. `view` transforms the evaluated
    clouds before the network, `train_view` those that the SVM is fitted to, by default as `view`.
    The probe does not change the training.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (the release evaluates on the test split each
    epoch).
    """

    def __init__(
        self,
        data: PointCloudDataModule,
        view: Transform,
        *,
        train_view: Transform | None = None,
        cost: float | None = 0.075,
        every_n_epochs: int = 1,
    ) -> None:
        if data.val_split is None and data.val_share is None:
            raise ValueError(
                "nothing to evaluate the SVM on: set val_split or val_share of its data"
            )
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        self.data, self.every_n_epochs = data, every_n_epochs
        self.views = {"train": view if train_view is None else train_view, "test": view}
        self.probe = LinearProbe(cost)
        split = "held_out" if data.val_split is None else data.val_split
        self.name = f"svm/accuracy_{split if isinstance(split, str) else '_'.join(split)}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, Pretraining):
            raise ValueError(
                f"callbacks.linear_probe: is of pretraining, and {type(pl_module).__name__} is "
                "tested itself: leave out probe="
            )
        self.data.keys |= {"label"}
        self.data.setup("fit")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1  # the last one is always evaluated
        if epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        assert isinstance(pl_module, Pretraining)
        local_accuracy = self._fit_probe(pl_module) if trainer.is_global_zero else 0.0
        # All processes log it, because each one decides whether to keep a checkpoint.
        accuracy = torch.tensor(trainer.strategy.broadcast(local_accuracy))
        pl_module.log(self.name, accuracy, prog_bar=True)

    def _fit_probe(self, task: Pretraining) -> float:
        data = self.data
        datasets = {"train": data.dataset, "test": data.val_dataset}
        features = {
            name: extract_features(
                task.model,
                data,
                data.sequential_dataloader(dataset),
                self.views[name],
                is_test=name == "test",
            )
            for name, dataset in datasets.items()
        }
        logits = self.probe(features, data.dataset.classes)
        return classification_scores(logits, features["test"].labels).overall_accuracy.mean
