"""Fine-tuning a segmenter of scenes, and testing it in whole rooms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from recon.data.batch import Batch, get_clouds
from recon.data.dataset import PointCloudDataset
from recon.models.segmenter import Segmenter
from recon.tasks.gather import gather_objects
from recon.tasks.iou import confusion, scene_scores
from recon.tasks.segment import Segmentation, SegmentedCloud
from recon.tasks.sliding_windows import SlidingWindowConfig, segment_room

MAX_DRAWN_POINTS = 20_000
"""Points kept of a tested room, to be drawn."""


class SceneSegmentation(Segmentation):
    """Classes of a scene's points: trained on columns, tested in whole rooms, z up [1].

    Rooms are covered by overlapping `windows`, each point predicted at least once a vote, and its
    log-probabilities averaged. `weighted` weighs classes by the cube root of how rare they are.
    Logs `val/miou` of whole rooms, by one vote.

    [1] Qi et al., arXiv:1706.02413 (whole-room testing); weights as released.
    """

    keys = frozenset({"point_labels"})

    def __init__(
        self,
        model: Segmenter,
        *,
        windows: SlidingWindowConfig,
        use_class_weights: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self.windows, self.use_class_weights = windows, use_class_weights

    def set_class_names(self, dataset: PointCloudDataset) -> None:
        super().set_class_names(dataset)
        counts = getattr(dataset, "label_counts", None)
        if self.use_class_weights and counts is not None:
            share = np.maximum(counts, 1) / max(counts.sum(), 1)
            self.class_weights = torch.from_numpy((share.max() / share) ** (1 / 3)).float()

    def _room(self, batch: Batch, votes: int) -> tuple[SegmentedCloud, Tensor, Tensor]:
        """Segment one room; return it, its confusion, and that of single windows."""
        clouds = get_clouds(batch)
        seed = int(batch["seed"][0])
        found = segment_room(
            self.forward, clouds, self.model.num_classes, self.windows, votes, seed
        )
        assert clouds.point_labels is not None
        labels, predicted = clouds.point_labels[0].cpu(), found.log_probs.argmax(1)
        counts = confusion(predicted, labels, self.model.num_classes)
        some = torch.linspace(
            0, len(labels) - 1, min(len(labels), MAX_DRAWN_POINTS), dtype=torch.float64
        ).long()
        points = clouds.points[0].cpu()
        shown = (x[some].clone() for x in (points, labels, predicted))
        return (
            SegmentedCloud(batch["id"][0], scene_scores(counts).miou, *shown),
            counts,
            found.window_confusion,
        )

    def on_validation_epoch_start(self) -> None:
        self.counts = torch.zeros(self.model.num_classes, self.model.num_classes, dtype=torch.long)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.counts += self._room(batch, votes=1)[1]

    def on_validation_epoch_end(self) -> None:
        total = self.trainer.strategy.reduce(self.counts.to(self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        self.log("val/miou", scene_scores(total).miou, prog_bar=True)

    def on_test_start(self) -> None:
        super().on_test_start()
        size = (self.model.num_classes, self.model.num_classes)
        self.merged, self.single = (torch.zeros(size, dtype=torch.long) for _ in range(2))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        room, merged, single = self._room(batch, self.windows.votes)
        self.test_clouds.append(room)
        self.merged += merged
        self.single += single

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self.merged = torch.stack(gather_objects(self.merged)).sum(0)
        self.single = torch.stack(gather_objects(self.single)).sum(0)

    def compute_results(self) -> dict[str, Any]:
        """Return what the test found, as JSON holds it."""
        votes = self.windows.votes
        kinds = {f"whole rooms, {votes} votes": self.merged, "single windows": self.single}
        return {
            "rooms": len(self.test_clouds),
            "points": int(self.merged.sum()),
            "results": {
                name: _scene(counts, self.model.class_names) for name, counts in kinds.items()
            },
            "ids": {room.name: room.iou for room in self.test_clouds},
        }


def _scene(counts: Int[Tensor, "c c"], names: Sequence[str]) -> dict[str, Any]:
    found = scene_scores(counts)
    per = dict(zip(names, found.iou.tolist(), strict=True))
    return {
        "miou": found.miou,
        "macc": found.macc,
        "overall_accuracy": {"mean": found.overall_accuracy},
        "per_class": {name: value for name, value in per.items() if value == value},
        "confusion": counts.tolist(),
    }
