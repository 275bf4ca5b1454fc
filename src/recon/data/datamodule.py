"""Base Lightning data module: splits, loaders and batch augmentation of all data sets."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from recon.data.batch import Batch, collate, get_clouds, global_batch_size, replace_clouds
from recon.data.dataset import PointCloudDataset, concat_datasets
from recon.data.epoch_position import EpochLayout, ResumedEpoch, build_train_sampler
from recon.data.file_notes import note_kind
from recon.data.image_augmentation import ImageAugmentation
from recon.data.orientation import align_up_axis
from recon.data.prepared.dataset import PreparedDataset
from recon.data.prepared.layout import is_prepared
from recon.data.sample_dataset import SampleDataset
from recon.data.sampler import (
    OrderedDistributedSampler,
    ResumableDistributedSampler,
    check_world_size,
)
from recon.data.splits import split_train_val, stratified_subset
from recon.data.transforms import AXES, Transform, axis_index
from recon.data.whole_clouds import transform_for_test
from recon.data.workers import end_with_parent
from recon.ops.distributed import all_gather_with_grad, rank_and_world_size, synced_rng
from recon.utils.deprecation import renamed_arguments

Split = str | Sequence[str]


class PointCloudDataModule(LightningDataModule, ABC):
    """Provide batches of augmented clouds and the other inputs that a task requests.

    `root` contains the original files of the data set, or those that `recon.prepare` wrote; both
    give the same samples. `split` is for training, `val_split` for validation and `test_split` for
    tests. `val_share` is the share of `split` that is held out for validation instead of
    `val_split`. `fraction` is the share of the remaining samples used for training. `keys` lists
    the fields of a batch beside points (see `Batch`). `num_points` is the number of points drawn
    from each cloud, None uses all points. `target_up` rotates clouds so that this axis points up,
    None keeps them unrotated. `transform` augments training batches on the device, `test_transform`
    those of validation and tests; it never acts on training data. If `keys` has "point_labels",
    clouds in validation and tests have all points of their files, padded to the largest cloud of a
    batch; with `eval_points=drawn` they have `num_points` drawn points, as in published code.
    `image_views` is the number of fixed augmentations per image, None draws a new one each time.
    Unreadable samples raise ValueError. With `on_error=skip` they are counted: tests omit them, and
    in training the next readable samples replace them.

    A batch depends only on `seed`, epoch and position, so that a resumed run sees the same batches
    as an uninterrupted one, also within an epoch.
    """

    splits: Mapping[str, Sequence[str]]
    """Maps each split to its parts on disk."""
    published_sizes: Mapping[str, int] = {}
    """Published number of clouds of each part."""

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
        eval_points: str = "file",
        on_error: str = "raise",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if val_split is not None and val_share is not None:
            raise ValueError("val_split and val_share are both set: set one of them to null")
        if num_points is not None and num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        if target_up is not None:
            target_up = AXES[axis_index(target_up)]
        _check_evaluation(eval_points, num_points, test_transform)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be raise or skip, got {on_error!r}")
        self.root = Path(root).expanduser()
        self.split, self.val_split, self.test_split = split, val_split, test_split
        self.val_share, self.fraction = val_share, fraction
        self.batch_size, self.drop_last, self.num_workers = batch_size, drop_last, num_workers
        self.num_points, self.target_up, self.seed = num_points, target_up, seed
        self.transform, self.test_transform = transform, test_transform
        self.eval_points = eval_points
        self.keys, self.image_views = frozenset(keys), image_views
        self.augment_image = augment_image or ImageAugmentation()
        self.on_error, self.skipped = on_error, dict[str, None]()
        self._note_kinds = set[str]()
        self.resumed_epoch: ResumedEpoch | None = None

    @abstractmethod
    def read_part(self, part: str) -> PointCloudDataset:
        """Open the original files of one part of the data set.

        Raises FileNotFoundError with download instructions if files are missing, and ValueError
        with the file name if a file is invalid.
        """

    def has_published_classes(self) -> bool:
        """Return whether published results are about the classes of the training data."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the options that affect the samples; prepared files record them."""
        return {}

    def open_split(self, split: Split) -> PointCloudDataset:
        """Open a split or the concatenation of several; raise ValueError for an unknown split."""
        names = [split] if isinstance(split, str) else split
        for name in names:
            if name not in self.splits:
                choices = ", ".join(self.splits)
                raise ValueError(
                    f"{type(self).__name__} has no split {name!r}: choose among {choices}"
                )
        return concat_datasets(
            [self.open_part(part) for name in names for part in self.splits[name]]
        )

    def stored_parts(self) -> list[str]:
        """Return the names of all parts on disk, without duplicates."""
        return list(dict.fromkeys(part for parts in self.splits.values() for part in parts))

    def open_part(self, part: str) -> PointCloudDataset:
        """Open one part from prepared files if `root` has them, else from the original files."""
        if is_prepared(self.root):
            return PreparedDataset(
                self.root, part, {"data": type(self).__name__, **self.settings()}
            )
        return self.read_part(part)

    def train_dataset(self) -> PointCloudDataset:
        """Open the training split."""
        return self.open_split(self.split)

    def setup(self, stage: str | None = None) -> None:
        # Trainers call this repeatedly. Each split is opened once: some are read into memory.
        if stage in (None, "fit") and not hasattr(self, "dataset"):
            self.dataset = self.train_dataset()
            if self.val_share is not None:
                self.dataset, self.val_dataset = split_train_val(
                    self.dataset, self.val_share, self.seed
                )
            self.dataset = stratified_subset(self.dataset, self.fraction, self.seed)
        validates = stage in (None, "fit", "validate") and self.val_split is not None
        if validates and not hasattr(self, "val_dataset"):
            self.val_dataset = self.open_split(self.val_split or ())
        tests = stage in (None, "test", "predict") and self.test_split is not None
        if tests and not hasattr(self, "test_dataset"):
            self.test_dataset = self.open_split(self.test_split or ())

    def teacher_keys(self) -> dict[str, Collection[str]]:
        """Return all ids and, if `keys` has "text", all texts and class names."""
        texts: dict[str, None] = {}
        if "text" in self.keys:
            for index in range(len(self.dataset)):
                texts.update(dict.fromkeys(self.dataset.texts(index)))
            texts.update(dict.fromkeys(self.dataset.classes))
        return {"id": self.dataset.ids, "text": texts}

    def train_dataloader(self) -> DataLoader[Any]:
        if not len(self.dataset):
            raise ValueError(f"{self.root}: no sample to train on: check data.split={self.split}")
        return self._build_loader(
            self.dataset,
            build_train_sampler(
                self.epoch_layout(self.trainer), self.trainer, self.resumed_epoch, self.seed
            ),
            replace_unreadable=True,
            num_points=self.num_points,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self.sequential_dataloader(self.val_dataset) if hasattr(self, "val_dataset") else []

    def test_dataloader(self) -> DataLoader[Any]:
        if self.test_split is None:
            raise ValueError(f"{type(self).__name__}: set `test_split` to one of {[*self.splits]}")
        return self.sequential_dataloader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.test_dataloader()

    def sequential_dataloader(self, dataset: PointCloudDataset, **options: Any) -> DataLoader[Any]:
        """Return a loader of each sample of a data set, once and in order.

        With labels of points and `eval_points=file`, clouds have all points of their files.
        """
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        check_world_size(len(dataset), world_size)
        sampler = OrderedDistributedSampler(
            len(dataset), seed=self.seed, rank=rank, num_replicas=world_size
        )
        options = {"num_points": self.num_points, **options}
        all_points = "point_labels" in self.keys and self.eval_points == "file"
        return self._build_loader(dataset, sampler, all_points=all_points, **options)

    def _build_loader(
        self,
        dataset: PointCloudDataset,
        sampler: ResumableDistributedSampler | OrderedDistributedSampler,
        *,
        replace_unreadable: bool = False,
        all_points: bool = False,
        batch_size: int | None = None,
        num_points: int | None,
    ) -> DataLoader[Any]:
        samples = SampleDataset(
            dataset,
            keys=self.keys,
            augment_image=self.augment_image,
            image_views=self.image_views,
            num_points=num_points,
            all_points=all_points,
            with_orientation=self.target_up is not None,
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

    def epoch_layout(self, trainer: Trainer | None) -> EpochLayout:
        """Return the options on which the batches of an epoch depend."""
        if trainer is None:
            return EpochLayout(len(self.dataset), self.batch_size, 1, self.drop_last)
        limit, accumulate = trainer.limit_train_batches, trainer.accumulate_grad_batches
        return EpochLayout(
            len(self.dataset),
            self.batch_size,
            trainer.world_size,
            self.drop_last,
            None if limit == 1.0 and isinstance(limit, float) else limit,
            accumulate,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for reason in batch.pop("skipped", ()):
            if reason not in self.skipped:
                warnings.warn(f"skipped ({len(self.skipped) + 1}): {reason}", stacklevel=2)
            self.skipped[reason] = None
        for name, note in batch.pop("notes", ()):
            if (kind := note_kind(note)) not in self._note_kinds:
                warnings.warn(f"{name}: {note} (said once)", stacklevel=2)
                self._note_kinds.add(kind)
        training = self.trainer is not None and self.trainer.training
        if training and rank_and_world_size()[1] > 1:
            batch["global_seeds"] = all_gather_with_grad(batch["seed"])
        return self.augment(batch, training=training)

    def align(self, batch: Batch) -> Batch:
        """Turn the up axis of the clouds of a batch to `target_up`."""
        return batch if self.target_up is None else align_up_axis(batch, self.target_up)

    def augment(self, batch: Batch, *, training: bool) -> Batch:
        """Align the up axis of a batch and transform it, seeded by the batch itself.

        In training, one seed determines the random numbers of the whole batch. Otherwise the seed
        of each sample determines its own, so that they do not depend on `batch_size`.
        """
        batch = self.align(batch)
        transform = self.transform if training else self.test_transform
        if transform is None:
            return batch
        if not training:
            return transform_for_test(batch, transform, self.num_points, self.seed)
        clouds = get_clouds(batch)
        seed = batch.get("global_seeds", batch["seed"])[0]
        generator = torch.Generator(clouds.points.device).manual_seed(int(seed))
        with synced_rng(global_batch_size(batch)):
            augmented = replace_clouds(batch, transform(clouds, generator))
            if "second_view" in self.keys:
                augmented["second_view"] = transform(clouds, generator).points
        return augmented

    def teardown(self, stage: str) -> None:
        if self.skipped:
            count = len(self.skipped)
            warnings.warn(f"{count} samples could not be read and were skipped", stacklevel=2)


def _check_evaluation(eval_points: str, num_points: int | None, test_transform: Any) -> None:
    """Raise ValueError for options of validation and tests that do not fit together."""
    if test_transform is not None and not callable(test_transform):
        raise ValueError(
            f"test_transform must be a transform of recon.data.transforms, got {test_transform!r}"
        )
    if eval_points not in ("file", "drawn"):
        raise ValueError(f"eval_points must be file or drawn, got {eval_points!r}")
    if eval_points == "drawn" and num_points is None:
        raise ValueError(
            "eval_points=drawn scores num_points drawn points, but num_points is null: set "
            "data.num_points=<points>, or eval.points=file"
        )
