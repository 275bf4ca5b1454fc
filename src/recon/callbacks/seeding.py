"""Seed each training step from its batch, so that a resumed run repeats the uninterrupted one."""

import torch
from lightning import Callback, LightningModule, Trainer

from recon.data.batch import Batch


class SeedEachStep(Callback):
    """Seed the masks, dropout and stochastic depth of a step by the seeds of its samples.

    Earlier events, such as an evaluation or a restart, then cannot change the step.
    """

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        # The sum of the seeds: augmentations of this batch use the seed of its first sample.
        torch.manual_seed(int(batch.get("global_seeds", batch["seed"]).sum()))
