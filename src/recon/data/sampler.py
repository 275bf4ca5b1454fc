"""The order of samples: a function of seed and epoch, resumable at any batch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler

from recon.data.batch import SeededIndex


class _Rows(Dataset[int]):
    """A data set of which only the size is known."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def _seeds(size: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randint(2**31, (size,), generator=generator).tolist()


class ResumableDistributedSampler(DistributedSampler[Any]):
    """Shuffle by seed and epoch, give each sample its own seed, start anywhere in an epoch.

    Order and seeds depend on nothing else: not on workers, on what ran before, or on how often a
    run was stopped. Ranks share one order and take turns; no sample is given twice. `kept` is how
    many of an epoch's samples are given, all by default. `skip` leaves out as many of a rank's
    samples at the start of epoch `epoch`.
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
    ) -> None:
        self.size, self.kept = dataset_size, dataset_size if epoch_size is None else epoch_size
        super().__init__(_Rows(dataset_size), num_replicas=num_replicas, rank=rank, seed=seed)
        self._resumed_epoch, self._skip = epoch, consumed_samples
        self.set_epoch(epoch)

    def __len__(self) -> int:
        return len(range(self.rank, self.kept, self.num_replicas))

    def __iter__(self) -> Iterator[SeededIndex]:
        seeds = _seeds(self.size, self.seed, self.epoch)
        skip = self._skip if self.epoch == self._resumed_epoch else 0
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()[: self.kept]
        for row in order[self.rank :: self.num_replicas][skip:]:
            yield SeededIndex(row, seeds[row])


class OrderedDistributedSampler(DistributedSampler[Any]):
    """Each sample once, in order, with a seed of its own; ranks take turns, and none repeats.

    A `DistributedSampler`, so that trainers do not share it out once more.
    """

    def __init__(
        self, dataset_size: int, *, seed: int = 0, rank: int = 0, num_replicas: int = 1
    ) -> None:
        super().__init__(
            _Rows(dataset_size), num_replicas=num_replicas, rank=rank, shuffle=False, seed=seed
        )
        self.rows, self.seeds = (
            range(rank, dataset_size, num_replicas),
            _seeds(dataset_size, seed, 0),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def global_batch_seeds(self, batch_index: int, batch_size: int) -> list[int]:
        """Return the seeds of the samples that the ranks' batches of this number hold together."""
        whole = batch_size * self.num_replicas
        return self.seeds[batch_index * whole : (batch_index + 1) * whole]

    def __iter__(self) -> Iterator[SeededIndex]:
        for row in self.rows:
            yield SeededIndex(row, self.seeds[row])
