"""What all data modules share: seeds, workers, skipping, turning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from recon.data.batch import Batch, Clouds, SeededIndex, concat_channels
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset, SampleDataset, resample_cloud
from recon.data.datasets.furniture import FurnitureDataModule
from recon.data.transforms import Compose, RandomJitter, RandomRotation, RandomScale


class Dots(PointCloudDataset):
    """Sixteen clouds of 40 points; `bad` ones cannot be read."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.bad = bad
        self.ids = [f"dot{row}" for row in range(16)]
        self.labels = np.arange(16) % 4
        self.classes = ("a", "b", "c", "d")

    def cloud(self, index: int) -> Cloud:
        if index in self.bad:
            raise ValueError(f"dot{index}.npy: is empty")
        rng = np.random.default_rng(index)
        points = rng.normal(size=(40, 3)).astype(np.float32)
        return Cloud(points, colors=rng.integers(0, 256, (40, 3)).astype(np.uint8))


class DotsModule(PointCloudDataModule):
    splits = {"train": ["train"], "test": ["test"]}

    def __init__(self, bad: tuple[int, ...] = (), **loading: object) -> None:
        super().__init__(".", **{"batch_size": 4, "test_split": "test", **loading})
        self.bad = bad

    def read_part(self, part: str) -> Dots:
        return Dots(self.bad)


class Collect(LightningModule):
    """Keeps what it is given."""

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


def trainer(epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip


AUGMENT = Compose([RandomRotation("y"), RandomScale(), RandomJitter()])


def seen(epochs: int = 1, **loading: object) -> list[Batch]:
    task = Collect()
    trainer(epochs).fit(task, DotsModule(num_points=24, transform=AUGMENT, **loading))
    return task.batches


def test_samples_do_not_depend_on_workers() -> None:
    alone, shared = seen(), seen(num_workers=2)
    for one, other in zip(alone, shared, strict=True):
        assert one["id"] == other["id"]
        assert torch.equal(one["points"], other["points"])


def test_no_two_workers_batches_or_epochs_share_their_randomness() -> None:
    # The classic bug: each worker starts each epoch with the same state of numpy.
    batches = seen(epochs=2, num_workers=2)
    seeds = torch.cat([batch["seed"] for batch in batches])
    assert len(set(seeds.tolist())) == len(seeds) == 32
    by_id: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, points in zip(batch["id"], batch["points"], strict=True):
            by_id.setdefault(name, []).append(points)
    assert all(len(views) == 2 and not torch.equal(*views) for views in by_id.values())
    # Which points were drawn differs from cloud to cloud as well.
    rows = [tuple(resample_cloud(Dots().cloud(0), 24, int(seed)).points[:, 0]) for seed in seeds]
    assert len(set(rows)) == 32


def test_augmentations_differ_between_the_batches_of_two_workers() -> None:
    batches = seen(num_workers=2)
    turned = []
    for batch in batches:
        index = int(batch["id"][0].removeprefix("dot"))
        before = resample_cloud(Dots().cloud(index), 24, int(batch["seed"][0])).points
        turned.append(
            (batch["points"][0].norm(dim=-1).mean() / np.linalg.norm(before, axis=1).mean()).item()
        )
    assert len({round(scale, 4) for scale in turned}) == len(turned)


def test_unreadable_samples_raise_or_are_counted() -> None:
    with pytest.raises(ValueError, match=r"dot3.npy: is empty"):
        seen(bad=(3, 7))
    task, data = Collect(), DotsModule(bad=(3, 7), on_error="skip")
    with pytest.warns(UserWarning, match="2 samples could not be read and were skipped"):
        trainer(epochs=2).fit(task, data)
    assert sorted(data.skipped) == ["dot3.npy: is empty", "dot7.npy: is empty"]
    # In training the next ones take their places, and batches keep their size.
    names = [name for batch in task.batches for name in batch["id"]]
    assert sorted(names) == sorted([f"dot{row + (row in (3, 7))}" for row in range(16)] * 2)
    assert {len(batch["id"]) for batch in task.batches} == {4}
    assert all("skipped" not in batch for batch in task.batches)
    with pytest.raises(ValueError, match=r"none of the 4 samples of a batch can be read: dot"):
        seen(bad=tuple(range(16)), on_error="skip")


def test_unreadable_samples_are_left_out_of_tests() -> None:
    task, data = Collect(), DotsModule(bad=(3, 7), on_error="skip", batch_size=2)
    with pytest.warns(UserWarning, match="2 samples could not be read and were skipped"):
        trainer().test(task, data, verbose=False)
    names = [name for batch in task.batches for name in batch["id"]]
    assert names == [f"dot{row}" for row in range(16) if row not in (3, 7)]


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="on_error must be raise or skip, got 'ignore'"):
        DotsModule(on_error="ignore")


def test_tests_see_each_sample_once_in_order_without_augmentation() -> None:
    task = Collect()
    trainer().test(
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


def test_what_the_data_have_not_is_named() -> None:
    data = DotsModule(keys=["normals"])
    data.setup("fit")
    with pytest.raises(ValueError, match=r"dot\d+ has no normals"):
        next(iter(data.train_dataloader()))
    with pytest.raises(ValueError, match="has no split 'val': choose among train, test"):
        DotsModule(split="val").setup("fit")
    with pytest.raises(ValueError, match="set `test_split` to one of"):
        DotsModule(test_split=None).test_dataloader()


def test_training_without_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16 samples make no batch of 32: lower data.batch_size"):
        seen(batch_size=32, drop_last=True)
    for wrong, message in (
        ({"num_points": 0}, "num_points must be at least 1"),
        ({"target_up": "q"}, "axis must be"),
    ):
        with pytest.raises(ValueError, match=message):
            DotsModule(**wrong)


def test_colours_of_different_kinds_share_a_batch() -> None:
    class Mixed(Dots):
        def cloud(self, index: int) -> Cloud:
            cloud = super().cloud(index)
            return cloud if index % 2 else cloud._replace(colors=cloud.colors / np.float32(255))

    both = [SampleDataset(kind(), keys=["colors"]) for kind in (Dots, Mixed)]
    for row in range(16):
        one, other = (samples[SeededIndex(row, 0)]["colors"] for samples in both)
        assert torch.equal(one, other)


def test_fewer_points_than_asked_for_are_repeated() -> None:
    cloud = Dots().cloud(0)
    grown = resample_cloud(cloud, 100, seed=1)
    assert np.array_equal(grown.points[:40], cloud.points)
    assert {tuple(p) for p in grown.points} == {tuple(p) for p in cloud.points}
    assert resample_cloud(cloud, 40, seed=1) is cloud


def test_channels_are_coordinates_colours_and_location() -> None:
    points, colors, location = torch.rand(3, 2, 5, 3)
    assert torch.equal(concat_channels(Clouds(points)), points)
    both = concat_channels(Clouds(points, colors=colors, location=location))
    assert torch.equal(both, torch.cat([points, colors, location], -1))


def test_modules_are_used_without_hydra_or_a_trainer(tmp_path: Path) -> None:
    data = DotsModule()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert data.augment(batch, training=True)["points"].shape == (4, 40, 3)


def test_a_last_batch_of_one_is_left_out() -> None:
    data = FurnitureDataModule(split="train", batch_size=67)  # 269 = 4 x 67 + 1
    data.setup("fit")
    sizes = [len(batch["id"]) for batch in data.train_dataloader()]
    assert sizes == [67] * 4
    data.batch_size = 66
    assert len([*data.train_dataloader()]) == 5
