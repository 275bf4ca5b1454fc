"""Fine-tuning a classifier, whole or in part, and testing it, by one view or by votes."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from lightning import LightningModule
from torch import Generator, Tensor
from torchmetrics.classification import MulticlassAccuracy

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.data.batch import Batch, global_batch_size
from recon.data.datamodule import PointCloudDataModule
from recon.data.sampler import OrderedDistributedSampler
from recon.data.transforms import Transform
from recon.models.classifier import Classifier
from recon.ops.distributed import rescale_local_mean, synced_rng
from recon.tasks.gather import gather_in_sample_order, gather_rows_in_sample_order
from recon.tasks.optim import (
    OptimizerFactory,
    SchedulerFactory,
    build_finetune_optimizer,
    build_optimizer_config,
    step_scheduler_by_epoch,
)


def is_head(name: str) -> bool:
    """Tell whether a parameter is of the head or the `cls` query: named `cls` in the release."""
    return name.startswith("model.head.") or name.endswith(("tokens.cls", "positions.cls"))


def _learnable(data: PointCloudDataModule, count: int) -> tuple[str, ...]:
    """Return the classes of the data to train on; raise ValueError where `count` cannot be learned.

    That is another number of classes, a label that is none, or a class without a shape.
    """
    names, labels = tuple(data.dataset.classes), np.asarray(data.dataset.labels)
    where = f"{type(data).__name__}, split {data.split!r}"
    if len(names) != count:
        raise ValueError(
            f"{where}: has {len(names)} classes, the classifier {count}: set classes={len(names)}, "
            "or leave it unset"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        wrong = int(np.flatnonzero((labels < 0) | (labels >= count))[0])
        raise ValueError(
            f"{where}: {data.dataset.ids[wrong]} has no label among its {count} classes: sort it "
            "into one, or take it out"
        )
    shapes = np.bincount(labels, minlength=count)
    if lacking := [name for name, of_it in zip(names, shapes, strict=True) if not of_it]:
        raise ValueError(
            f"{where}: {len(lacking)} of {count} classes have no shape to learn from, among them "
            f"{lacking[0]!r}: add shapes, or leave these classes out of the data"
        )
    return names


class Classification(LightningModule):
    """Learn classes by cross entropy [1].

    `freeze_encoder` trains the head and the `cls` query alone; the rest stays in evaluation mode.
    `view` is what validation and test see of a cloud. With `votes` a test also averages the logits
    of so many draws of `vote_view`; `vote_rounds` repeats that. Logs `train/loss`, `val/accuracy`;
    tests leave logits in `tested`, by name, beside `labels` and `ids`.

    [1] Qi et al., arXiv:2302.02318, section 4.1.
    """

    keys = frozenset({"label"})

    def __init__(
        self,
        model: Classifier,
        *,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        freeze_encoder: bool = False,
        view: Transform | None = None,
        vote_view: Transform | None = None,
        votes: int = 0,
        vote_rounds: int = 1,
    ) -> None:
        super().__init__()
        if votes and vote_view is None:
            raise ValueError("votes need a `vote_view`: what each of them sees of a cloud")
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.freeze_encoder, self.view = freeze_encoder, view
        self.vote_view, self.votes, self.vote_rounds = vote_view, votes, vote_rounds
        self.accuracy = MulticlassAccuracy(model.num_classes, average="micro")
        if freeze_encoder:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(is_head(name))

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, PointCloudDataModule):
            self.model.class_names = _learnable(data, self.model.num_classes)

    def train(self, mode: bool = True) -> "Classification":
        """Keep what is frozen in evaluation mode: its statistics and depth do not move."""
        super().train(mode)
        if self.freeze_encoder:
            self.model.encoder.eval()
        return self

    def forward(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b c"]:
        return self.model(points)

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        size = len(batch["label"])
        with synced_rng(global_batch_size(batch)):
            logits = self(batch["points"])
        loss = rescale_local_mean(F.cross_entropy(logits, batch["label"]), size)
        self.log("train/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def _seen(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b c"]:
        return self(self.view(points) if self.view else points)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.accuracy(self._seen(batch["points"]), batch["label"])
        self.log("val/accuracy", self.accuracy, prog_bar=True, batch_size=len(batch["label"]))

    def on_test_start(self) -> None:
        self.test_logits: dict[str, list[Tensor]] = {}
        self.labels: list[Tensor] = []
        self.ids: list[str] = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.labels.append(batch["label"].cpu())
        self.ids += batch["id"]
        self._keep("one view", self._seen(batch["points"]))
        seeds = self._together(batch, batch_idx)
        for number in range(self.vote_rounds if self.votes else 0):
            generator = Generator(self.device).manual_seed(seeds[0] + number)
            with synced_rng(len(seeds)):
                self._keep(f"round {number}", self._voted(batch["points"], generator))

    def _together(self, batch: Batch, number: int) -> list[int]:
        """Return the seeds of the batches of all processes; some may have one batch fewer."""
        loader: Any = self.trainer.test_dataloaders
        if isinstance(sampler := getattr(loader, "sampler", None), OrderedDistributedSampler):
            return sampler.global_batch_seeds(number, loader.batch_size)
        return batch["seed"].tolist()

    def _keep(self, name: str, logits: Tensor) -> None:
        self.test_logits.setdefault(name, []).append(logits.float().cpu())

    def _voted(self, points: Float[Tensor, "b n 3"], generator: Generator) -> Float[Tensor, "b c"]:
        assert self.vote_view is not None
        views = [self(self.vote_view(points, generator)) for _ in range(self.votes)]
        return torch.stack(views).mean(0)

    def on_test_epoch_end(self) -> None:
        self.test_logits = {
            name: gather_rows_in_sample_order(batches) for name, batches in self.test_logits.items()
        }
        self.labels, self.ids = (
            gather_rows_in_sample_order(self.labels),
            gather_in_sample_order(self.ids),
        )

    def configure_optimizers(self) -> Any:
        return build_optimizer_config(
            build_finetune_optimizer(self, self.optimizer, is_head), self.scheduler
        )

    lr_scheduler_step = step_scheduler_by_epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = build_metadata(self.model)
