"""The one data module that does the work; each data set's own is a few lines beside it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from recon.data.batch import Batch, collate
from recon.data.dataset import PointCloudDataset, Samples
from recon.data.images import ImageAugmentation
from recon.data.sampler import DrawSampler
from recon.data.transforms import Transform


class PointCloudDataModule(LightningDataModule, ABC):
    """Batches of augmented clouds with what a task asks for beside them.

    `keys` names that (see `Batch`), `transform` augments whole batches after they reached the
    device. `image_views` fixes the number of different augmentations of a picture, None draws
    fresh ones. A batch is a function of `seed`, epoch and position alone, so that a run stopped
    and resumed, in the middle of an epoch too, sees what the uninterrupted one does.
    """

    def __init__(
        self,
        *,
        batch_size: int = 128,
        drop_last: bool = False,
        transform: Transform | None = None,
        keys: Collection[str] = (),
        augment_image: Callable[[Image.Image, int], Tensor] | None = None,
        image_views: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.drop_last = batch_size, drop_last
        self.transform, self.seed = transform, seed
        self.keys, self.workers = frozenset(keys), workers
        self.augment_image = augment_image or ImageAugmentation()
        self.image_views = image_views

    @abstractmethod
    def train_dataset(self) -> PointCloudDataset:
        """Open the data to train on; raise FileNotFoundError that tells how to get them."""

    def setup(self, stage: str) -> None:
        self.dataset = self.train_dataset()

    def names(self) -> dict[str, Collection[str]]:
        """Return all ids and, where texts are asked for, all of them and the class names."""
        texts: dict[str, None] = {}
        if "text" in self.keys:
            for index in range(len(self.dataset)):
                texts.update(dict.fromkeys(self.dataset.texts(index)))
            texts.update(dict.fromkeys(self.dataset.classes))
        return {"id": self.dataset.ids, "text": texts}

    def train_dataloader(self) -> DataLoader[Any]:
        samples = Samples(
            self.dataset,
            keys=self.keys,
            augment_image=self.augment_image,
            image_views=self.image_views,
        )
        return DataLoader(
            samples,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            sampler=self._sampler(),
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    def _sampler(self) -> DrawSampler:
        if self.trainer is None:
            return DrawSampler(len(self.dataset), seed=self.seed)
        ranks = self.trainer.world_size
        # Where training stands: Lightning restores its loops before it asks for this loader.
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        epoch, done = epochs.processed, 0
        if epochs.started > epoch:  # stopped inside an epoch, or at its last step
            batches: Any = loop.epoch_loop.batch_progress
            done = 0 if batches.is_last_batch else batches.current.processed
            epoch += batches.is_last_batch
        return DrawSampler(
            len(self.dataset),
            seed=self.seed,
            rank=self.trainer.global_rank,
            ranks=ranks,
            epoch=epoch,
            skip=done * self.batch_size,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.transform is None or self.trainer is None or not self.trainer.training:
            return batch
        points = batch["points"]
        generator = torch.Generator(points.device).manual_seed(int(batch["seed"][0]))
        augmented: Batch = {**batch, "points": self.transform(points, generator)}
        if "second" in self.keys:
            augmented["second"] = self.transform(points, generator)
        return augmented
