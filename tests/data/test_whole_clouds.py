"""Validation and test batches with all points of the files, each scored once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from recon.data.batch import Batch, Clouds, collate
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset, resample_cloud
from recon.data.transforms import (
    Compose,
    PointDropout,
    RandomJitter,
    RandomPointSample,
    RandomSO3Rotation,
    Transform,
    UnitSphere,
)
from recon.data.whole_clouds import WholeCloud, get_whole_clouds

SIZES = (30, 7, 52, 20)
ANY_POSE = Compose(
    [RandomPointSample(20), UnitSphere(), RandomSO3Rotation(), RandomJitter(), PointDropout(0.5)]
)


class Parts(PointCloudDataset):
    """Clouds of different sizes with point labels."""

    def __init__(self) -> None:
        self.ids = [f"part{row}" for row in range(len(SIZES))]
        self.labels = np.arange(len(SIZES)) % 2
        self.classes, self.point_classes = ("a", "b"), ("w", "x", "y", "z")

    def cloud(self, index: int) -> Cloud:
        rng = np.random.default_rng(index)
        points = rng.normal(size=(SIZES[index], 3)).astype(np.float32)
        return Cloud(points, colors=points / 9, point_labels=rng.integers(0, 4, SIZES[index]))


class PartsModule(PointCloudDataModule):
    splits = {"train": ["train"], "test": ["test"]}

    def __init__(self, root: str | Path = ".", **loading: object) -> None:
        defaults = {"test_split": "test", "val_split": "test", "num_points": 20, "batch_size": 4}
        super().__init__(root, **{**defaults, **loading})

    def read_part(self, part: str) -> Parts:
        return Parts()


def load_batches(**loading: object) -> list[Batch]:
    data = PartsModule(keys=["point_labels", "label", "colors"], **loading)
    data.setup()
    for loader in (data.val_dataloader(), data.test_dataloader()):
        batches = [data.augment(batch, training=False) for batch in loader]
    return batches


def load_clouds(**loading: object) -> list[WholeCloud]:
    return [cloud for batch in load_batches(**loading) for cloud in get_whole_clouds(batch)]


def test_batches_have_each_point_of_the_files_once() -> None:
    (batch,) = load_batches()
    assert batch["points"].shape == batch["colors"].shape == (4, 52, 3)
    assert batch["sizes"].tolist() == list(SIZES)
    for row, size in enumerate(SIZES):
        stored = Parts().cloud(row)
        assert np.array_equal(batch["points"][row, :size], stored.points)
        assert np.array_equal(batch["point_labels"][row, :size], stored.point_labels)
        assert (batch["point_labels"][row, size:] == -1).all()
        assert torch.equal(
            batch["points"][row, size:], batch["points"][row, :1].expand(52 - size, 3)
        )
    for cloud, size in zip(get_whole_clouds(batch), SIZES, strict=True):
        assert cloud.clouds.points.shape == cloud.clouds.colors.shape == (1, size, 3)
        assert torch.equal(cloud.file_points, cloud.clouds.points[0])


def test_training_and_drawn_batches_have_drawn_points() -> None:
    drawn = load_batches(eval_points="drawn")[0]
    assert drawn["points"].shape == (4, 20, 3)
    assert "sizes" not in drawn
    expected = resample_cloud(Parts().cloud(2), 20, int(drawn["seed"][2]))
    assert np.array_equal(drawn["points"][2], expected.points)
    data = PartsModule(keys=["point_labels"])
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["points"].shape == (4, 20, 3)
    with pytest.raises(ValueError, match="eval_points=drawn scores num_points drawn points"):
        PartsModule(num_points=None, eval_points="drawn")
    with pytest.raises(ValueError, match="eval_points must be file or drawn, got 'all'"):
        PartsModule(eval_points="all")


def test_without_point_labels_clouds_have_drawn_points() -> None:
    data = PartsModule(keys=["label"])
    data.setup("test")
    assert next(iter(data.test_dataloader()))["points"].shape == (4, 20, 3)


def test_transforms_do_not_see_the_padding() -> None:
    for cloud, size in zip(load_clouds(test_transform=UnitSphere()), SIZES, strict=True):
        shown = cloud.clouds.points
        assert shown.shape[1] == max(size, 20)  # small clouds repeat points, as in training
        assert shown.mean(1).abs().max() < 1e-6
        assert float(shown.norm(dim=-1).max()) == pytest.approx(1)
        assert (cloud.clouds.point_labels[0, size:] == -1).all()


@pytest.mark.parametrize("transform", [None, UnitSphere(), ANY_POSE])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_reach_all_points_of_the_file_in_any_batch(
    transform: Transform | None, batch_size: int
) -> None:
    """The score of a seen point is its own; others have that of the nearest seen point."""
    clouds = load_clouds(test_transform=transform, batch_size=batch_size)
    together = load_clouds(test_transform=transform)
    for row, (cloud, other) in enumerate(zip(clouds, together, strict=True)):
        assert torch.allclose(cloud.clouds.points, other.clouds.points, atol=1e-6)
        stored = Parts().cloud(row)
        assert np.array_equal(cloud.file_points, stored.points)
        assert np.array_equal(cloud.file_labels, stored.point_labels)
        # Colors mark the points: they are not transformed.
        scores = cloud.spread(cloud.clouds.colors[0])
        is_seen = (scores - torch.from_numpy(stored.colors)).abs().amax(1) < 1e-6
        assert scores.shape == (SIZES[row], 3)
        if transform is not ANY_POSE:
            assert is_seen.all()
            continue
        seen = cloud.file_points[is_seen]
        assert 0 < len(seen) <= min(20, SIZES[row])
        nearest = torch.cdist(cloud.file_points, seen).argmin(1)
        assert torch.allclose(scores, torch.from_numpy(stored.colors)[is_seen][nearest], atol=1e-6)


def test_points_that_are_seen_twice_have_their_mean() -> None:
    points = torch.arange(9.0).view(3, 3)
    cloud = WholeCloud(Clouds(points[None]), points, rows=torch.tensor([2, 0, 2]))
    scores = cloud.spread(torch.tensor([[1.0], [5.0], [3.0]]))
    assert scores.tolist() == [[5.0], [5.0], [2.0]]


def test_a_transform_that_loses_the_rows_raises_value_error() -> None:
    class KeepSome(Transform):
        def apply(self, clouds: Clouds, generator: torch.Generator | None) -> Clouds:
            return Clouds(clouds.points[:, :9])

    class Shift(Transform):
        def apply(self, clouds: Clouds, generator: torch.Generator | None) -> Clouds:
            return Clouds(clouds.points + 1)

    with pytest.raises(ValueError, match="returned 9 of 30 points without their `file_rows`"):
        load_batches(test_transform=KeepSome())
    for cloud in load_clouds(test_transform=Shift()):
        assert torch.allclose(cloud.spread(cloud.clouds.points[0]), cloud.file_points + 1)


def test_clouds_without_sizes_are_not_padded() -> None:
    samples = [{"points": torch.zeros(size, 3), "id": str(size)} for size in (4, 5)]
    with pytest.raises(ValueError, match=r"5 has 5 points and 4 4: clouds of one batch must have"):
        collate(samples)


def test_a_trainer_passes_the_whole_clouds_to_the_task() -> None:
    class Recorder(LightningModule):
        def test_step(self, batch: Batch, batch_idx: int) -> None:
            sizes.extend(len(cloud.file_labels) for cloud in get_whole_clouds(batch))

    sizes: list[int] = []
    data = PartsModule(keys=["point_labels"], test_transform=UnitSphere(), batch_size=3)
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        Recorder(), data, verbose=False
    )
    assert sizes == list(SIZES)
