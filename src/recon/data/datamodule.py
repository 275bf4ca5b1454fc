"""The one data module that does the work; each data set's own is a few lines beside it."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from recon.data.batch import Batch, collate, get_clouds, global_batch_size, replace_clouds
from recon.data.dataset import PointCloudDataset, SampleDataset, concat_datasets
from recon.data.image_augmentation import ImageAugmentation
from recon.data.prepared.dataset import PreparedDataset, is_prepared
from recon.data.sampler import OrderedDistributedSampler, ResumableDistributedSampler
from recon.data.splits import split_train_val, stratified_subset
from recon.data.transforms import AlignUpAxis, Transform, axis_index
from recon.data.workers import end_with_parent
from recon.ops.distributed import all_gather_with_grad, rank_and_world_size, synced_rng
from recon.utils.deprecation import renamed_arguments

Split = str | Sequence[str]


class PointCloudDataModule(LightningDataModule, ABC):
    """Batches of augmented clouds with what a task asks for beside them.

    `root` holds the data set as it lies on disk, or as `recon.prepare` wrote it: the samples are
    the same. `split` is trained on, `val_split` validated, `test_split` tested; `val_share` holds
    such a share of `split` out of training to validate on instead, and `fraction` is the share of
    the rest that is trained on. `keys` names what a batch holds
    beside points (see `Batch`). `num_points` draws as many points from each cloud, None
    takes all; `target_up` turns clouds so that this axis points upwards, None leaves them.
    `transform` augments whole training batches after they reached the device, `test_transform` the
    others. `image_views` fixes the number of different augmentations of a picture, None draws
    fresh ones. Samples that cannot be read raise ValueError; with `on_error=skip` they are counted
    and left out of tests, and the next ones take their places in training.

    A batch is a function of `seed`, epoch and position alone, so that a run stopped and resumed,
    in the middle of an epoch too, sees what the uninterrupted one does.
    """

    splits: Mapping[str, Sequence[str]]
    """Names of splits, and the parts on disk that each consists of."""
    published_sizes: Mapping[str, int] = {}
    """Clouds of each part, by its publication."""

    @renamed_arguments(size="num_points", workers="num_workers")
    def __init__(
        self,
        root: str | Path,
        *,
        split: Split = "train",
        val_split: Split | None = None,
        test_split: Split | None = None,
        val_share: float | None = None,
        fraction: float = 1.0,
        batch_size: int = 128,
        drop_last: bool = False,
        num_points: int | None = None,
        target_up: str | None = None,
        transform: Transform | None = None,
        test_transform: Transform | None = None,
        keys: Collection[str] = (),
        augment_image: Callable[[Image.Image, int], Tensor] | None = None,
        image_views: int | None = None,
        on_error: str = "raise",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if val_split is not None and val_share is not None:
            raise ValueError("validate on `val_split` or on `val_share` of `split`, not on both")
        if num_points is not None and num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        if target_up is not None:
            axis_index(target_up)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be raise or skip, got {on_error!r}")
        self.root = Path(root).expanduser()
        self.split, self.val_split, self.test_split = split, val_split, test_split
        self.val_share, self.fraction = val_share, fraction
        self.batch_size, self.drop_last, self.num_workers = batch_size, drop_last, num_workers
        self.num_points, self.target_up, self.seed = num_points, target_up, seed
        self.transform, self.test_transform = transform, test_transform
        self.keys, self.image_views = frozenset(keys), image_views
        self.augment_image = augment_image or ImageAugmentation()
        self.on_error, self.skipped = on_error, dict[str, None]()
        self.upright: AlignUpAxis | None = None

    @abstractmethod
    def read_part(self, part: str) -> PointCloudDataset:
        """Open one part of the data set as it lies on disk.

        Raises FileNotFoundError that tells how to get it, and ValueError that names a bad file.
        """

    def settings(self) -> dict[str, Any]:
        """Return the options that change which samples there are."""
        return {}

    def open_split(self, split: Split) -> PointCloudDataset:
        """Open a split, or several one after the other; raise ValueError for an unknown one."""
        names = [split] if isinstance(split, str) else split
        for name in names:
            if name not in self.splits:
                known = ", ".join(self.splits)
                raise ValueError(
                    f"{type(self).__name__} has no split {name!r}: choose among {known}"
                )
        return concat_datasets(
            [self.open_part(part) for name in names for part in self.splits[name]]
        )

    def stored_parts(self) -> list[str]:
        """Return the parts on disk, each once."""
        return list(dict.fromkeys(part for parts in self.splits.values() for part in parts))

    def open_part(self, part: str) -> PointCloudDataset:
        """Open one part, from the original files or prepared ones."""
        if is_prepared(self.root):
            return PreparedDataset(
                self.root, part, {"data": type(self).__name__, **self.settings()}
            )
        return self.read_part(part)

    def train_dataset(self) -> PointCloudDataset:
        """Open the data to train on."""
        return self.open_split(self.split)

    def setup(self, stage: str | None = None) -> None:
        # Each is opened once, though trainers ask again: some are read as a whole.
        if stage in (None, "fit") and not hasattr(self, "dataset"):
            self.dataset = self.train_dataset()
            if self.val_share is not None:
                self.dataset, self.val_dataset = split_train_val(
                    self.dataset, self.val_share, self.seed
                )
            self.dataset = stratified_subset(self.dataset, self.fraction, self.seed)
        validated = stage in (None, "fit", "validate") and self.val_split is not None
        if validated and not hasattr(self, "val_dataset"):
            self.val_dataset = self.open_split(self.val_split or ())
        tested = stage in (None, "test", "predict") and self.test_split is not None
        if tested and not hasattr(self, "test_dataset"):
            self.test_dataset = self.open_split(self.test_split or ())
        for name in ("dataset", "val_dataset", "test_dataset"):
            if self.target_up is not None and hasattr(self, name):
                opened = getattr(self, name)
                self.upright = AlignUpAxis(opened.up, self.target_up, mirror=opened.mirrored)

    def teacher_keys(self) -> dict[str, Collection[str]]:
        """Return all ids and, where texts are asked for, all of them and the class names."""
        texts: dict[str, None] = {}
        if "text" in self.keys:
            for index in range(len(self.dataset)):
                texts.update(dict.fromkeys(self.dataset.texts(index)))
            texts.update(dict.fromkeys(self.dataset.classes))
        return {"id": self.dataset.ids, "text": texts}

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(
            self.dataset, self._sampler(), replace_unreadable=True, num_points=self.num_points
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self.sequential_dataloader(self.val_dataset) if hasattr(self, "val_dataset") else []

    def test_dataloader(self) -> DataLoader[Any]:
        if self.test_split is None:
            raise ValueError(f"{type(self).__name__}: set `test_split` to one of {[*self.splits]}")
        return self.sequential_dataloader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.test_dataloader()

    def sequential_dataloader(self, dataset: PointCloudDataset, **changed: Any) -> DataLoader[Any]:
        """Load each sample of a data set once, in order."""
        rank, ranks = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        _one_each(len(dataset), ranks)
        sampler = OrderedDistributedSampler(
            len(dataset), seed=self.seed, rank=rank, num_replicas=ranks
        )
        return self._loader(dataset, sampler, **{"num_points": self.num_points, **changed})

    def _loader(
        self,
        dataset: PointCloudDataset,
        sampler: ResumableDistributedSampler | OrderedDistributedSampler,
        *,
        replace_unreadable: bool = False,
        batch_size: int | None = None,
        num_points: int | None,
    ) -> DataLoader[Any]:
        samples = SampleDataset(
            dataset,
            keys=self.keys,
            augment_image=self.augment_image,
            image_views=self.image_views,
            num_points=num_points,
            skip_unreadable=self.on_error == "skip",
            replace_unreadable=replace_unreadable,
        )
        return DataLoader(
            samples,
            batch_size=batch_size or self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            worker_init_fn=end_with_parent,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _kept(self, ranks: int) -> int:
        """Count the samples of an epoch: all, or those of whole batches of all processes."""
        count, whole = len(self.dataset), self.batch_size * ranks
        _one_each(count, ranks)
        rest = count % whole
        if self.drop_last and count < whole:
            raise ValueError(
                f"{count} samples make no batch of {whole}: lower data.batch_size, or set "
                "data.drop_last=false"
            )
        # Batch statistics need two of each process: fewer are left out, others each epoch.
        alone = count > whole and self.batch_size > 1 and rest < 2 * ranks
        return count - rest if self.drop_last or alone or rest < ranks else count

    def _sampler(self) -> ResumableDistributedSampler:
        if self.trainer is None:
            return ResumableDistributedSampler(
                len(self.dataset), seed=self.seed, epoch_size=self._kept(1)
            )
        ranks = self.trainer.world_size
        # Where training stands: Lightning restores its loops before it asks for this loader.
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        epoch, done = epochs.processed, 0
        if epochs.started > epoch:  # stopped inside an epoch, or at its last step
            batches: Any = loop.epoch_loop.batch_progress
            done = 0 if batches.is_last_batch else batches.current.processed
            epoch += batches.is_last_batch
        return ResumableDistributedSampler(
            len(self.dataset),
            seed=self.seed,
            rank=self.trainer.global_rank,
            num_replicas=ranks,
            epoch=epoch,
            consumed_samples=done * self.batch_size,
            epoch_size=self._kept(ranks),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for why in batch.pop("skipped", ()):
            if why not in self.skipped:
                warnings.warn(f"skipped ({len(self.skipped) + 1}): {why}", stacklevel=2)
            self.skipped[why] = None
        training = self.trainer is not None and self.trainer.training
        if training and rank_and_world_size()[1] > 1:
            batch["global_seeds"] = all_gather_with_grad(batch["seed"])
        return self.augment(batch, training=training)

    def augment(self, batch: Batch, *, training: bool) -> Batch:
        """Turn a batch upright and transform it, from its own seeds."""
        clouds = get_clouds(batch)
        if self.upright is not None:
            clouds = self.upright(clouds)
        transform = self.transform if training else self.test_transform
        if transform is None:
            return replace_clouds(batch, clouds)
        first = batch.get("global_seeds", batch["seed"])[0]
        generator = torch.Generator(clouds.points.device).manual_seed(int(first))
        with synced_rng(global_batch_size(batch)):
            augmented = replace_clouds(batch, transform(clouds, generator))
            if training and "second_view" in self.keys:
                augmented["second_view"] = transform(clouds, generator).points
        return augmented

    def teardown(self, stage: str) -> None:
        if self.skipped:
            count = len(self.skipped)
            warnings.warn(f"{count} samples could not be read and were skipped", stacklevel=2)


def _one_each(count: int, ranks: int) -> None:
    """Raise ValueError where a process would have nothing to do."""
    if count < ranks > 1:
        raise ValueError(f"{count} samples for {ranks} processes: set trainer.devices={count}")
