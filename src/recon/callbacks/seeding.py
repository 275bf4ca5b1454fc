"""Randomness of a step from its batch, so that a resumed run repeats the uninterrupted one."""

import torch
from lightning import Callback, LightningModule, Trainer

from recon.data.batch import Batch


class SeedEachStep(Callback):
    """Seed masks, dropout and stochastic depth of a step by the seeds its batch carries.

    What happened before a step (evaluation, pictures, a stop and a restart) then cannot change it.
    """

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        # The sum: the augmentations of this batch already drew from its first sample's seed.
        torch.manual_seed(int(batch.get("global_seeds", batch["seed"]).sum()))
