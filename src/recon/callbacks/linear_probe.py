"""A linear SVM on the features while they are learned."""

import torch
from lightning import Callback, LightningModule, Trainer

from recon.data.datamodule import PointCloudDataModule
from recon.data.transforms import Transform
from recon.tasks.feature_extraction import LinearProbe, extract_features
from recon.tasks.metrics import classification_scores
from recon.tasks.pretrain import Pretraining


class LinearProbeCallback(Callback):
    """Every so many epochs and after the last one, fit a linear SVM to the features of data [1].

    It is fitted on the `split` of `data` and read on its `val_split`, or on the `val_share` of
    `split` that is held out. Logs the overall accuracy as `svm/accuracy_<val_split>`, or
    `svm/accuracy_held_out`, which callbacks.checkpoint may monitor. `view` is what the network sees
    of a cloud. Nothing is learned from it, and training goes on as it would without.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (the release reads the test split each epoch).
    """

    def __init__(
        self,
        data: PointCloudDataModule,
        view: Transform,
        *,
        cost: float | None = 0.075,
        every_n_epochs: int = 1,
    ) -> None:
        if data.val_split is None and data.val_share is None:
            raise ValueError("the SVM is read on nothing: set val_split or val_share of its data")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        self.data, self.view, self.every_n_epochs = data, view, every_n_epochs
        self.probe = LinearProbe(cost)
        read = "held_out" if data.val_split is None else data.val_split
        self.name = f"svm/accuracy_{read if isinstance(read, str) else '_'.join(read)}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.data.keys |= {"label"}
        self.data.setup("fit")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch + 1  # the last is measured whatever its number
        if done % self.every_n_epochs and done != trainer.max_epochs:
            return
        assert isinstance(pl_module, Pretraining)
        found = self._measure(pl_module) if trainer.is_global_zero else 0.0
        # All processes log it: each decides by it whether to keep a checkpoint.
        accuracy = torch.tensor(trainer.strategy.broadcast(found))
        pl_module.log(self.name, accuracy, prog_bar=True)

    def _measure(self, task: Pretraining) -> float:
        training, data = task.model.training, self.data
        sets = {"train": data.dataset, "test": data.val_dataset}
        shapes = {
            name: extract_features(task.model, data, data.sequential_dataloader(part), self.view)
            for name, part in sets.items()
        }
        task.model.train(training)
        logits = self.probe(shapes, data.dataset.classes)
        return classification_scores(logits, shapes["test"].labels).overall_accuracy.mean
