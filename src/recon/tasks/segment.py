"""Fine-tune a segmenter of points, and test it on object parts."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.data.batch import Batch, Clouds, concat_channels, get_clouds, global_batch_size
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import PointCloudDataset
from recon.data.whole_clouds import get_whole_clouds
from recon.models.segmenter import Segmenter
from recon.ops.distributed import rescale_local_mean, synced_rng
from recon.tasks.class_names import check_checkpoint_classes, check_data_classes
from recon.tasks.gather import gather_in_sample_order
from recon.tasks.iou import (
    IGNORE_INDEX,
    confusion,
    part_iou,
    part_scores,
    predict_parts,
)
from recon.tasks.optim import (
    OptimizerFactory,
    ScheduledTask,
    SchedulerFactory,
    build_finetune_optimizer,
    build_optimizer_config,
)
from recon.tasks.sliding_windows import segment_shapes

MAX_DRAWN_POINTS = 20_000
"""Maximum number of points of a tested cloud in figures."""


def is_head(name: str) -> bool:
    """Tell whether a parameter trains at the learning rate of the head, grouped as released.

    These are the new layers, without most of their norms: the release selects them by name.
    """
    if name.startswith("model.object_embed."):
        return True
    return name.startswith(("model.propagate.", "model.point_head.")) and "_norm." not in name


class SegmentedCloud(NamedTuple):
    """A segmented shape or room, for figures."""

    name: str
    iou: float
    points: Float[Tensor, "n 3"]
    labels: Int[Tensor, " n"]
    predicted: Int[Tensor, " n"]


def subsample_cloud(
    name: str,
    iou: float,
    points: Float[Tensor, "n 3"],
    labels: Int[Tensor, " n"],
    predicted: Int[Tensor, " n"],
) -> SegmentedCloud:
    """Return a segmented cloud with at most `MAX_DRAWN_POINTS` points for figures."""
    rows = torch.linspace(
        0, len(labels) - 1, min(len(labels), MAX_DRAWN_POINTS), dtype=torch.float64
    ).long()
    return SegmentedCloud(name, iou, *(x[rows].clone() for x in (points, labels, predicted)))


class Segmentation(ScheduledTask, ABC):
    """Base class: learn classes of points by negative log-likelihood, ignoring points labeled -1.

    `double_step` repeats each optimizer step on the same gradients, as the released script does by
    mistake. Logs `train/loss`; subclasses log validation metrics. In validation and tests, the seed
    of the data determines how the points of all clouds are grouped, as in recon.segment.
    """

    def __init__(
        self,
        model: Segmenter,
        *,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        double_step: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.double_step = double_step
        self.class_weights: Float[Tensor, " c"] | None = None
        self.test_clouds: list[SegmentedCloud] = []
        self.seed = 0

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, PointCloudDataModule):
            return
        self.seed = data.seed
        if stage == "fit":
            self.set_class_names(data.dataset)
        elif stage == "test" and hasattr(data, "test_dataset"):
            check_data_classes(self.model, data.test_dataset)
            if not self.model.class_names:  # released files have no names
                self.set_class_names(data.test_dataset)

    def set_class_names(self, dataset: PointCloudDataset) -> None:
        """Copy the class names of the data; raise ValueError if the network has another number."""
        classes = dataset.point_classes
        if len(classes) != self.model.num_classes:
            raise ValueError(
                f"the points have {len(classes)} classes, the network has "
                f"{self.model.num_classes}: leave num_classes unset, or choose another checkpoint"
            )
        self.model.class_names = tuple(classes)

    def forward(
        self, clouds: Clouds, label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n c"]:
        return self.model(concat_channels(clouds), label)

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        clouds = get_clouds(batch)
        with synced_rng(global_batch_size(batch)):
            scores = self(clouds, batch.get("label"))
        assert clouds.point_labels is not None
        weight = None if self.class_weights is None else self.class_weights.to(scores)
        labels = clouds.point_labels.flatten()
        loss = F.nll_loss(scores.flatten(0, 1), labels, weight, ignore_index=IGNORE_INDEX)
        used = labels[labels != IGNORE_INDEX]
        if not len(used):  # the mean over no points is NaN
            loss = scores.sum() * 0
        loss = rescale_local_mean(loss, len(used) if weight is None else weight[used].sum())
        size = len(clouds.points)
        self.log("train/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.double_step:
            getattr(optimizer, "optimizer", optimizer).step()

    def on_test_start(self) -> None:
        self.test_clouds = []

    def on_test_epoch_end(self) -> None:
        self.test_clouds = gather_in_sample_order(self.test_clouds)

    @abstractmethod
    def compute_results(self) -> dict[str, Any]:
        """Return the test results as JSON types."""

    def configure_optimizers(self) -> Any:
        return build_optimizer_config(
            build_finetune_optimizer(self, self.optimizer, is_head), self.scheduler
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_checkpoint_classes(self.model, checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = build_metadata(self.model)


class PartSegmentation(Segmentation):
    """Part segmentation of objects whose class is given [1]. Logs `val/instance_miou`.

    Validation and tests score each point of the files once. The network predicts them in passes of
    `num_points` points, as in training; see `segment_shapes`. A test averages the log-probabilities
    of `votes` such predictions, validation has one.

    [1] Qi et al., arXiv:2302.02318, section 4.1.
    """

    keys = frozenset({"label", "point_labels"})

    def __init__(self, model: Segmenter, *, votes: int = 1, **settings: Any) -> None:
        super().__init__(model, **settings)
        if votes < 1:
            raise ValueError(f"votes must be at least 1, got {votes}")
        self.votes, self.eval_points = votes, "file"
        self.num_points: int | None = None

    def set_class_names(self, dataset: PointCloudDataset) -> None:
        super().set_class_names(dataset)
        self.model.object_names = tuple(dataset.classes)
        self.model.parts = {name: [*rows] for name, rows in dataset.parts.items()}
        if len(dataset.classes) != self.model.num_objects:
            raise ValueError(
                f"the data have {len(dataset.classes)} object classes, the network has "
                f"{self.model.num_objects}: leave num_object_classes unset, or choose another "
                "checkpoint"
            )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PointCloudDataModule):
            self.num_points = data.num_points

    def _segment_shapes(self, batch: Batch, votes: int) -> list[SegmentedCloud]:
        """Predict all points of the shapes, and score each point of their files once."""
        clouds, label = get_whole_clouds(batch), batch["label"]
        all_scores = segment_shapes(
            self.forward,
            [cloud.clouds for cloud in clouds],
            label,
            seed=self.seed,
            num_points=self.num_points,
            votes=votes,
        )
        shapes = []
        for name, number, cloud, scores in zip(
            batch["id"], label.tolist(), clouds, all_scores, strict=True
        ):
            assert cloud.file_labels is not None
            parts = self.model.parts[self.model.object_names[number]]
            predicted, labels = predict_parts(cloud.spread(scores), parts), cloud.file_labels.cpu()
            iou = part_iou(confusion(predicted, labels, self.model.num_classes), parts)
            shapes.append(subsample_cloud(name, iou, cloud.file_points.cpu(), labels, predicted))
        return shapes

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ious = [shape.iou for shape in self._segment_shapes(batch, votes=1)]
        mean = torch.tensor(ious, device=self.device).mean()
        self.log("val/instance_miou", mean, prog_bar=True, batch_size=len(ious), sync_dist=True)

    def on_test_start(self) -> None:
        super().on_test_start()
        self.labels: list[int] = []
        self.point_counts: list[int] = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.test_clouds += self._segment_shapes(batch, self.votes)
        self.labels += batch["label"].tolist()
        self.point_counts += [len(cloud.file_points) for cloud in get_whole_clouds(batch)]
        self.eval_points = "file" if "sizes" in batch else "drawn"

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self.labels = gather_in_sample_order(self.labels)
        self.point_counts = gather_in_sample_order(self.point_counts)

    def compute_results(self) -> dict[str, Any]:
        """Return the test results as JSON types."""
        ious = torch.tensor([shape.iou for shape in self.test_clouds], dtype=torch.float64)
        names = self.model.object_names
        scores = part_scores(ious, torch.tensor(self.labels), len(names))
        per_class = dict(zip(names, scores.per_class.tolist(), strict=True))
        return {
            "shapes": len(ious),
            "points": sum(self.point_counts),
            "eval_points": self.eval_points,
            "votes": self.votes,
            "instance_miou": scores.instance_miou,
            "class_miou": scores.class_miou,
            "per_class": {name: value for name, value in per_class.items() if value == value},
            "ids": {shape.name: shape.iou for shape in self.test_clouds},
        }
