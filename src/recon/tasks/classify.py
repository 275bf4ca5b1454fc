"""Fine-tune a classifier or only its head, and test it with a single view or by voting."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.data.batch import Batch, Clouds, global_batch_size
from recon.data.datamodule import PointCloudDataModule
from recon.data.seeded_transforms import RandomStream, seed_generators, transform_each
from recon.data.transforms import Transform
from recon.models.classifier import Classifier
from recon.ops.distributed import rescale_local_mean, synced_rng
from recon.tasks.class_names import check_checkpoint_classes, check_data_classes
from recon.tasks.gather import gather_in_sample_order, gather_rows_in_sample_order
from recon.tasks.optim import (
    OptimizerFactory,
    ScheduledTask,
    SchedulerFactory,
    build_finetune_optimizer,
    build_optimizer_config,
)


def is_head(name: str) -> bool:
    """Tell whether a parameter belongs to the head or the `cls` query, grouped as released."""
    return name.startswith("model.head.") or name.endswith(("tokens.cls", "positions.cls"))


def _check_classes(data: PointCloudDataModule, count: int) -> tuple[str, ...]:
    """Return the class names of the training data; raise ValueError if they do not fit the network.

    The number of classes must be `count`, every label must be one of them, and every class must
    have at least one shape.
    """
    names, labels = tuple(data.dataset.classes), np.asarray(data.dataset.labels)
    source = f"{type(data).__name__}, split {data.split!r}"
    if len(names) != count:
        raise ValueError(
            f"{source}: the data have {len(names)} classes, the classifier has {count}: set "
            f"num_classes={len(names)}, or leave it unset"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        invalid_row = int(np.flatnonzero((labels < 0) | (labels >= count))[0])
        raise ValueError(
            f"{source}: the label of {data.dataset.ids[invalid_row]} is none of the {count} "
            "classes: correct the label, or remove the sample"
        )
    shapes = np.bincount(labels, minlength=count)
    if empty := [name for name, number in zip(names, shapes, strict=True) if not number]:
        raise ValueError(
            f"{source}: {len(empty)} of {count} classes have no training shape, for example "
            f"{empty[0]!r}: add shapes, or remove these classes from the data"
        )
    return names


class Classification(ScheduledTask):
    """Train a classifier by cross entropy [1].

    `freeze_encoder` trains only the head and the `cls` query; the encoder stays in evaluation mode.
    `view` is the transform of clouds in validation and test. If `votes` is not zero, a test also
    averages the logits of `votes` random draws of `vote_view`, and repeats this `vote_rounds`
    times. The seed of a shape determines the random numbers of its views, so that they do not
    depend on the batch. Logs `train/loss` and `val/accuracy`. A test stores its logits by name in
    `test_logits`, and the labels and ids of its samples in `labels` and `ids`.

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
            raise ValueError("votes > 0 needs a `vote_view`, the transform of each vote")
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
            self.model.class_names = _check_classes(data, self.model.num_classes)
        elif stage == "test" and data and hasattr(data, "test_dataset"):
            check_data_classes(self.model, data.test_dataset)

    def find_frozen_modules(self) -> list[nn.Module]:
        """Return the frozen modules, and the whole encoder if only its `cls` query is trained."""
        return [*super().find_frozen_modules(), *[self.model.encoder] * self.freeze_encoder]

    def forward(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b c"]:
        return self.model(points)

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        size = len(batch["label"])
        with synced_rng(global_batch_size(batch)):
            logits = self(batch["points"])
        loss = rescale_local_mean(F.cross_entropy(logits, batch["label"]), size)
        self.log("train/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def _predict_view(self, batch: Batch) -> Float[Tensor, "b c"]:
        clouds = Clouds(batch["points"])
        if self.view is not None:
            generators = seed_generators(batch["seed"], self.device, RandomStream.VIEW)
            clouds = transform_each(self.view, clouds, generators)
        return self(clouds.points)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.accuracy(self._predict_view(batch), batch["label"])
        self.log("val/accuracy", self.accuracy, prog_bar=True, batch_size=len(batch["label"]))

    def on_test_start(self) -> None:
        self.test_logits: dict[str, list[Tensor]] = {}
        self.labels: list[Tensor] = []
        self.ids: list[str] = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.labels.append(batch["label"].cpu())
        self.ids += batch["id"]
        self._store_logits("one view", self._predict_view(batch))
        for number in range(self.vote_rounds if self.votes else 0):
            generators = seed_generators(batch["seed"], self.device, RandomStream.VOTE + number)
            self._store_logits(f"round {number}", self._predict_vote(batch["points"], generators))

    def _store_logits(self, name: str, logits: Tensor) -> None:
        self.test_logits.setdefault(name, []).append(logits.float().cpu())

    def _predict_vote(
        self, points: Float[Tensor, "b n 3"], generators: Sequence[Generator]
    ) -> Float[Tensor, "b c"]:
        assert self.vote_view is not None
        views = [
            self(transform_each(self.vote_view, Clouds(points), generators).points)
            for _ in range(self.votes)
        ]
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_checkpoint_classes(self.model, checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = build_metadata(self.model)
