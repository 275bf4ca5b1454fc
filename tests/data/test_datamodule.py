"""Base data module: seeds, workers, unreadable samples, up-axis alignment."""

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from recon.data.batch import Batch, Clouds, SeededIndex, concat_channels
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset, resample_cloud
from recon.data.datasets.furniture import FurnitureDataModule
from recon.data.sample_dataset import SampleDataset
from recon.data.transforms import AlignUpAxis, Compose, RandomJitter, RandomRotation, RandomScale


class Dots(PointCloudDataset):
    """Sixteen clouds of 40 points; those in `unreadable` raise an error."""

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.unreadable = unreadable
        self.ids = [f"dot{row}" for row in range(16)]
        self.labels = np.arange(16) % 4
        self.classes = ("a", "b", "c", "d")

    def cloud(self, index: int) -> Cloud:
        if index in self.unreadable:
            raise ValueError(f"dot{index}.npy: is empty")
        rng = np.random.default_rng(index)
        points = rng.normal(size=(40, 3)).astype(np.float32)
        return Cloud(points, colors=rng.integers(0, 256, (40, 3)).astype(np.uint8))


class DotsModule(PointCloudDataModule):
    splits = {"train": ["train"], "test": ["test"]}

    def __init__(self, unreadable: tuple[int, ...] = (), **loading: object) -> None:
        super().__init__(".", **{"batch_size": 4, "test_split": "test", **loading})
        self.unreadable = unreadable

    def read_part(self, part: str) -> Dots:
        return Dots(self.unreadable)


class BatchRecorder(LightningModule):
    """Record all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[Batch] = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.batches.append(batch)
        return self.weight * 0

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.batches.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def build_trainer(epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip


AUGMENT = Compose([RandomRotation("y"), RandomScale(), RandomJitter()])


def collect_training_batches(epochs: int = 1, **loading: object) -> list[Batch]:
    task = BatchRecorder()
    build_trainer(epochs).fit(task, DotsModule(num_points=24, transform=AUGMENT, **loading))
    return task.batches


def test_samples_do_not_depend_on_workers() -> None:
    expected, batches = collect_training_batches(), collect_training_batches(num_workers=2)
    for first, second in zip(expected, batches, strict=True):
        assert first["id"] == second["id"]
        assert torch.equal(first["points"], second["points"])


def test_random_draws_differ_between_workers_batches_and_epochs() -> None:
    # A common bug: each worker starts each epoch with the same NumPy random state.
    batches = collect_training_batches(epochs=2, num_workers=2)
    seeds = torch.cat([batch["seed"] for batch in batches])
    assert len(set(seeds.tolist())) == len(seeds) == 32
    by_id: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, points in zip(batch["id"], batch["points"], strict=True):
            by_id.setdefault(name, []).append(points)
    assert all(len(views) == 2 and not torch.equal(*views) for views in by_id.values())
    # The drawn points differ from cloud to cloud too.
    rows = [tuple(resample_cloud(Dots().cloud(0), 24, int(seed)).points[:, 0]) for seed in seeds]
    assert len(set(rows)) == 32


def test_augmentations_differ_between_the_batches_of_two_workers() -> None:
    batches = collect_training_batches(num_workers=2)
    scales = []
    for batch in batches:
        index = int(batch["id"][0].removeprefix("dot"))
        before = resample_cloud(Dots().cloud(index), 24, int(batch["seed"][0])).points
        scales.append(
            (batch["points"][0].norm(dim=-1).mean() / np.linalg.norm(before, axis=1).mean()).item()
        )
    assert len({round(scale, 4) for scale in scales}) == len(scales)


def test_unreadable_training_samples_raise_or_are_replaced_and_counted() -> None:
    with pytest.raises(ValueError, match=r"dot3.npy: is empty"):
        collect_training_batches(unreadable=(3, 7))
    task, data = BatchRecorder(), DotsModule(unreadable=(3, 7), on_error="skip")
    with pytest.warns(UserWarning, match="2 samples could not be read and were skipped"):
        build_trainer(epochs=2).fit(task, data)
    assert sorted(data.skipped) == ["dot3.npy: is empty", "dot7.npy: is empty"]
    # In training the next samples replace them, and batches keep their size.
    names = [name for batch in task.batches for name in batch["id"]]
    assert sorted(names) == sorted([f"dot{row + (row in (3, 7))}" for row in range(16)] * 2)
    assert {len(batch["id"]) for batch in task.batches} == {4}
    assert all("skipped" not in batch for batch in task.batches)
    with pytest.raises(ValueError, match=r"none of the 4 samples of a batch can be read: dot"):
        collect_training_batches(unreadable=tuple(range(16)), on_error="skip")


def test_unreadable_test_samples_are_omitted() -> None:
    task, data = BatchRecorder(), DotsModule(unreadable=(3, 7), on_error="skip", batch_size=2)
    with pytest.warns(UserWarning, match="2 samples could not be read and were skipped"):
        build_trainer().test(task, data, verbose=False)
    names = [name for batch in task.batches for name in batch["id"]]
    assert names == [f"dot{row}" for row in range(16) if row not in (3, 7)]


def test_invalid_on_error_raises_value_error() -> None:
    with pytest.raises(ValueError, match="on_error must be raise or skip, got 'ignore'"):
        DotsModule(on_error="ignore")


def test_test_loader_yields_each_sample_once_in_order_without_augmentation() -> None:
    task = BatchRecorder()
    build_trainer().test(
        task, DotsModule(transform=AUGMENT, batch_size=5, keys=["label", "colors"]), verbose=False
    )
    assert [name for batch in task.batches for name in batch["id"]] == Dots().ids
    assert [len(batch["id"]) for batch in task.batches] == [5, 5, 5, 1]
    assert torch.equal(
        torch.cat([b["points"] for b in task.batches])[3], torch.from_numpy(Dots().cloud(3).points)
    )
    assert torch.cat([b["label"] for b in task.batches]).tolist() == Dots().labels.tolist()
    colors = torch.cat([b["colors"] for b in task.batches])[3]
    assert torch.allclose(colors, torch.from_numpy(Dots().cloud(3).colors) / 255)


def test_test_transforms_do_not_depend_on_the_batch_size() -> None:
    points = []
    for batch_size in (1, 5, 16):
        task = BatchRecorder()
        build_trainer().test(
            task, DotsModule(test_transform=AUGMENT, batch_size=batch_size), verbose=False
        )
        points.append(torch.cat([batch["points"] for batch in task.batches]))
    assert torch.allclose(points[0], points[1], atol=1e-6)
    assert torch.allclose(points[0], points[2], atol=1e-6)
    assert not torch.allclose(points[0][0], torch.from_numpy(Dots().cloud(0).points))


def test_each_cloud_is_aligned_from_its_own_up_axis() -> None:
    class Tilted(DotsModule):
        splits = {"train": ["y"], "test": ["z"], "both": ["z", "y", "mirrored"]}

        def read_part(self, part: str) -> Dots:
            dots = Dots()
            dots.up, dots.mirrored = part.replace("mirrored", "z"), part == "mirrored"
            return dots

    turned = {
        "y": lambda points: points,
        "z": AlignUpAxis("z", "y"),
        "mirrored": AlignUpAxis("z", "y", mirror=True),
    }
    data = Tilted(target_up="y", batch_size=48)
    data.setup()  # opens the training data first, then the test data
    stored = torch.stack([torch.from_numpy(Dots().cloud(row).points) for row in range(16)])
    data.batch_size = 16
    for dataset, part in ((data.dataset, "y"), (data.test_dataset, "z")):
        batch = next(iter(data.sequential_dataloader(dataset)))
        aligned = data.augment(batch, training=part == "y")["points"]
        assert torch.equal(aligned, turned[part](stored))
    (batch,) = data.sequential_dataloader(data.open_split("both"), batch_size=48)
    aligned = data.augment(batch, training=False)["points"]
    assert torch.equal(aligned, torch.cat([turned[part](stored) for part in data.splits["both"]]))


def test_missing_fields_and_splits_raise_value_error() -> None:
    data = DotsModule(keys=["normals"])
    data.setup("fit")
    with pytest.raises(ValueError, match=r"dot\d+ has no normals"):
        next(iter(data.train_dataloader()))
    with pytest.raises(ValueError, match="has no split 'val': choose among train, test"):
        DotsModule(split="val").setup("fit")
    with pytest.raises(ValueError, match="set `test_split` to one of"):
        DotsModule(test_split=None).test_dataloader()


def test_fewer_samples_than_batch_size_and_invalid_options_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"16 samples are fewer than one batch of 32: lower data"):
        collect_training_batches(batch_size=32, drop_last=True)
    for options, message in (
        ({"num_points": 0}, "num_points must be at least 1"),
        ({"target_up": "q"}, "axis must be"),
    ):
        with pytest.raises(ValueError, match=message):
            DotsModule(**options)


def test_uint8_and_float_colors_give_equal_samples() -> None:
    class Mixed(Dots):
        def cloud(self, index: int) -> Cloud:
            cloud = super().cloud(index)
            return cloud if index % 2 else cloud._replace(colors=cloud.colors / np.float32(255))

    datasets = [SampleDataset(cls(), keys=["colors"]) for cls in (Dots, Mixed)]
    for row in range(16):
        first, second = (dataset[SeededIndex(row, 0)]["colors"] for dataset in datasets)
        assert torch.equal(first, second)


def test_resampling_a_small_cloud_repeats_points() -> None:
    cloud = Dots().cloud(0)
    resampled = resample_cloud(cloud, 100, seed=1)
    assert np.array_equal(resampled.points[:40], cloud.points)
    assert {tuple(p) for p in resampled.points} == {tuple(p) for p in cloud.points}
    assert resample_cloud(cloud, 40, seed=1) is cloud


def test_concat_channels_joins_points_colors_and_location() -> None:
    points, colors, location = torch.rand(3, 2, 5, 3)
    assert torch.equal(concat_channels(Clouds(points)), points)
    channels = concat_channels(Clouds(points, colors=colors, location=location))
    assert torch.equal(channels, torch.cat([points, colors, location], -1))


def test_data_module_works_without_hydra_and_trainer() -> None:
    data = DotsModule()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert data.augment(batch, training=True)["points"].shape == (4, 40, 3)


def test_last_batch_of_one_sample_is_dropped() -> None:
    data = FurnitureDataModule(split="train", batch_size=67)  # 269 = 4 x 67 + 1
    data.setup("fit")
    sizes = [len(batch["id"]) for batch in data.train_dataloader()]
    assert sizes == [67] * 4
    data.batch_size = 66
    assert len([*data.train_dataloader()]) == 5
