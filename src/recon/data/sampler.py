"""Samplers: the order of samples depends only on seed and epoch and can resume at any batch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler

from recon.data.batch import SeededIndex


class _SizedDataset(Dataset[int]):
    """Stand-in for a data set: `DistributedSampler` needs only its length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def _draw_seeds(size: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randint(2**31, (size,), generator=generator).tolist()


class ResumableDistributedSampler(DistributedSampler[Any]):
    """Shuffle by seed and epoch, give each sample its own seed, and resume within an epoch.

    Order and seeds depend on nothing else: not on workers, earlier epochs, or how often the run
    was stopped. All ranks share one order and take turns; no sample is repeated. `epoch_size` is
    the number of samples per epoch of all ranks, by default all samples. Epoch `epoch` begins after
    `consumed_samples` samples of all ranks, and ends at sample `resumed_stop`, by default at its
    end. `counted_samples` are the samples of this rank that the length of this epoch counts as
    consumed, by default those that were.
    """

    def __init__(
        self,
        dataset_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
        epoch: int = 0,
        consumed_samples: int = 0,
        epoch_size: int | None = None,
        resumed_stop: int | None = None,
        counted_samples: int | None = None,
    ) -> None:
        self.dataset_size = dataset_size
        self.epoch_size = dataset_size if epoch_size is None else epoch_size
        super().__init__(
            _SizedDataset(dataset_size), num_replicas=num_replicas, rank=rank, seed=seed
        )
        self._resumed_epoch, self._consumed_samples = epoch, consumed_samples
        self._resumed_stop = self.epoch_size if resumed_stop is None else resumed_stop
        if counted_samples is None:
            counted_samples = len(range(rank, consumed_samples, num_replicas))
        self._counted_samples = counted_samples
        self.set_epoch(epoch)

    @property
    def start(self) -> int:
        """Number of samples of all ranks that this epoch skips."""
        return self._consumed_samples if self.epoch == self._resumed_epoch else 0

    @property
    def stop(self) -> int:
        """Number of samples of all ranks in this epoch, the skipped ones included."""
        return self._resumed_stop if self.epoch == self._resumed_epoch else self.epoch_size

    def __len__(self) -> int:
        counted = self._counted_samples if self.epoch == self._resumed_epoch else 0
        return counted + len(range(self.start + self.rank, self.stop, self.num_replicas))

    def __iter__(self) -> Iterator[SeededIndex]:
        seeds = _draw_seeds(self.dataset_size, self.seed, self.epoch)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.dataset_size, generator=generator).tolist()
        for row in order[self.start : self.stop][self.rank :: self.num_replicas]:
            yield SeededIndex(row, seeds[row])


class OrderedDistributedSampler(DistributedSampler[Any]):
    """Yield each sample once, in order, with its own seed; ranks take turns, without repeats.

    It is a `DistributedSampler`, so that Lightning does not wrap it in another one.
    """

    def __init__(
        self, dataset_size: int, *, seed: int = 0, rank: int = 0, num_replicas: int = 1
    ) -> None:
        super().__init__(
            _SizedDataset(dataset_size),
            num_replicas=num_replicas,
            rank=rank,
            shuffle=False,
            seed=seed,
        )
        self.rows = range(rank, dataset_size, num_replicas)
        self.seeds = _draw_seeds(dataset_size, seed, 0)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[SeededIndex]:
        for row in self.rows:
            yield SeededIndex(row, self.seeds[row])


def check_world_size(num_samples: int, world_size: int) -> None:
    """Raise ValueError if some processes would have no samples."""
    if num_samples < world_size > 1:
        raise ValueError(
            f"{num_samples} samples for {world_size} processes: set trainer.devices={num_samples}"
        )


def compute_epoch_size(
    num_samples: int, batch_size: int, world_size: int, *, drop_last: bool
) -> int:
    """Return the number of samples per epoch: all, or only those of full global batches.

    Raises ValueError if some processes would have no samples, or no batch would be full.
    """
    check_world_size(num_samples, world_size)
    global_size = batch_size * world_size
    remainder = num_samples % global_size
    if drop_last and num_samples < global_size:
        raise ValueError(
            f"{num_samples} samples are fewer than one batch of {global_size}: lower "
            "data.batch_size, or set data.drop_last=false"
        )
    # BatchNorm needs two samples in each process: smaller last batches are left out. Because of the
    # shuffle, each epoch leaves out different samples.
    too_small = num_samples > global_size and batch_size > 1 and remainder < 2 * world_size
    drop = drop_last or too_small or remainder < world_size
    return num_samples - remainder if drop else num_samples
