"""Fine-tune a segmenter of scenes and test it on whole rooms by sliding windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from recon.data.batch import Batch
from recon.data.dataset import PointCloudDataset
from recon.data.whole_clouds import get_whole_clouds
from recon.models.segmenter import Segmenter
from recon.tasks.gather import gather_objects
from recon.tasks.iou import confusion, scene_scores
from recon.tasks.segment import Segmentation, SegmentedCloud, subsample_cloud
from recon.tasks.sliding_windows import SlidingWindowConfig, segment_room


class SceneSegmentation(Segmentation):
    """Semantic segmentation of scenes, trained on blocks and tested on whole rooms, z up [1].

    Tests cover a room by overlapping `windows`; each vote predicts every point at least once, and
    log-probabilities are averaged. `use_class_weights` weights a class by the cube root of its
    inverse frequency, relative to the most frequent class. Logs `val/miou` of whole
    rooms with one vote.

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
            frequency = np.maximum(counts, 1) / max(counts.sum(), 1)
            weights = (frequency.max() / frequency) ** (1 / 3)
            self.class_weights = torch.from_numpy(weights).float()

    def _segment_room(self, batch: Batch, votes: int) -> tuple[SegmentedCloud, Tensor, Tensor]:
        """Return a segmented room, its confusion matrix, and the one of its single windows."""
        (room,) = get_whole_clouds(batch)
        prediction = segment_room(
            self.forward, room.clouds, self.model.num_classes, self.windows, votes, self.seed
        )
        assert room.file_labels is not None
        labels, predicted = room.file_labels.cpu(), room.spread(prediction.log_probs).argmax(1)
        counts = confusion(predicted, labels, self.model.num_classes)
        miou, points = scene_scores(counts).miou, room.file_points.cpu()
        segmented = subsample_cloud(batch["id"][0], miou, points, labels, predicted)
        return segmented, counts, prediction.window_confusion

    def on_validation_epoch_start(self) -> None:
        size = (self.model.num_classes, self.model.num_classes)
        self.val_confusion = torch.zeros(size, dtype=torch.long)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_confusion += self._segment_room(batch, votes=1)[1]

    def on_validation_epoch_end(self) -> None:
        total = self.trainer.strategy.reduce(self.val_confusion.to(self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        self.log("val/miou", scene_scores(total).miou, prog_bar=True)

    def on_test_start(self) -> None:
        super().on_test_start()
        size = (self.model.num_classes, self.model.num_classes)
        self.room_confusion = torch.zeros(size, dtype=torch.long)
        self.window_confusion = torch.zeros(size, dtype=torch.long)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        room, room_confusion, window_confusion = self._segment_room(batch, self.windows.votes)
        self.test_clouds.append(room)
        self.room_confusion += room_confusion
        self.window_confusion += window_confusion

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self.room_confusion = torch.stack(gather_objects(self.room_confusion)).sum(0)
        self.window_confusion = torch.stack(gather_objects(self.window_confusion)).sum(0)

    def compute_results(self) -> dict[str, Any]:
        """Return the test results as JSON types."""
        votes = self.windows.votes
        confusions = {
            f"whole rooms, {votes} votes": self.room_confusion,
            "single windows": self.window_confusion,
        }
        return {
            "rooms": len(self.test_clouds),
            "votes": votes,
            "points": int(self.room_confusion.sum()),
            "eval_points": "file",
            "results": {
                name: _scores_to_dict(counts, self.model.class_names)
                for name, counts in confusions.items()
            },
            "ids": {room.name: room.iou for room in self.test_clouds},
        }


def _scores_to_dict(counts: Int[Tensor, "c c"], names: Sequence[str]) -> dict[str, Any]:
    scores = scene_scores(counts)
    iou = dict(zip(names, scores.iou.tolist(), strict=True))
    return {
        "miou": scores.miou,
        "macc": scores.macc,
        "overall_accuracy": {"mean": scores.overall_accuracy},
        "per_class": {name: value for name, value in iou.items() if value == value},
        "confusion": counts.tolist(),
    }
