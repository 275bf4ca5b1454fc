"""Describe the position in an epoch in samples, and continue there with any batch size."""

import hashlib
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from lightning import Trainer

from recon.data.sampler import ResumableDistributedSampler, compute_epoch_size

BatchLimit = int | float | None
"""Lightning's `limit_train_batches`: a number of batches, or a share of them."""


def digest_ids(ids: Sequence[str]) -> str:
    """Return a digest of the ids of samples and of their order."""
    joined = "\0".join(ids)
    return hashlib.sha256(joined.encode(errors="surrogatepass")).hexdigest()[:16]


class EpochPosition(NamedTuple):
    """Position of training after its last optimizer step, counted over all processes."""

    epoch: int
    consumed_samples: int
    """Samples of this epoch that training has used."""
    epoch_size: int
    """Samples of this epoch, without those that `drop_last` omits."""
    is_complete: bool
    """Whether the epoch ended by itself or by `batch_limit`, not by a stop."""
    batch_limit: BatchLimit
    ids_digest: str


class ResumedEpoch(NamedTuple):
    """The epoch in which training continues; `start` and `stop` count samples of all processes."""

    epoch: int
    start: int
    stop: int
    skipped_batches: int
    """Batches that count as done: a multiple of the batches of an optimizer step."""
    num_batches: int
    """Batches of this epoch, those that count as done included."""
    batch_limit: int | None
    """The limit in batches of the options of the resumed run."""
    is_regular: bool
    """Whether this epoch has as many batches as later ones."""


class EpochLayout(NamedTuple):
    """The options on which the batches of an epoch depend."""

    num_samples: int
    batch_size: int
    world_size: int
    drop_last: bool
    batch_limit: BatchLimit = None
    accumulate: int = 1

    @property
    def global_batch(self) -> int:
        """Number of samples in the batches of all processes."""
        return self.batch_size * self.world_size

    @property
    def epoch_size(self) -> int:
        """Number of samples in an epoch without a limit."""
        return compute_epoch_size(
            self.num_samples, self.batch_size, self.world_size, drop_last=self.drop_last
        )

    @property
    def num_batches(self) -> int:
        """Number of batches of each process in an epoch, as Lightning counts them."""
        full, limit = ceil(self.epoch_size / self.global_batch), self.batch_limit
        if limit is None:
            return full
        return min(full, limit) if isinstance(limit, int) else int(full * limit)

    @property
    def is_limited(self) -> bool:
        """Whether `batch_limit` shortens the epoch."""
        return self.num_batches < ceil(self.epoch_size / self.global_batch)


def find_resumed_epoch(position: EpochPosition, layout: EpochLayout) -> ResumedEpoch:
    """Return where training continues after `position` under the options of `layout`.

    The samples left in the epoch are used once each, in their order. An epoch that a stop ended, or
    a limit that no longer holds, goes on. The last batch may be smaller; like at the end of any
    epoch, it is left out if a process would have fewer than two of its samples.
    """
    stop = position.epoch_size
    if layout.is_limited:
        stop = min(stop, layout.num_batches * layout.global_batch)
    left = stop - position.consumed_samples
    if position.is_complete and position.batch_limit == layout.batch_limit:
        left = 0
    num_left, last = divmod(max(left, 0), layout.global_batch)
    smallest = layout.world_size * (2 if layout.batch_size > 1 else 1)
    if last >= smallest and num_left < layout.num_batches:
        num_left += 1
    limit = layout.num_batches if layout.is_limited else None
    if not num_left:
        stop = layout.num_batches * layout.global_batch
        stop = min(stop, layout.epoch_size)
        return ResumedEpoch(position.epoch + 1, 0, stop, 0, layout.num_batches, limit, True)
    start = position.consumed_samples
    stop = min(stop, start + num_left * layout.global_batch)
    skipped = layout.num_batches - num_left
    skipped -= skipped % layout.accumulate
    total = skipped + num_left
    return ResumedEpoch(
        position.epoch, start, stop, skipped, total, limit, total == layout.num_batches
    )


def build_train_sampler(
    layout: EpochLayout, trainer: Trainer | None, resumed: ResumedEpoch | None, seed: int
) -> ResumableDistributedSampler:
    """Return the sampler of the training samples, which starts where training continues.

    Without `resumed`, this is the batch that Lightning's loops name. Lightning restores its loops
    before it requests the training loader.
    """
    rank, epoch, position = 0, 0, dict[str, int]()
    if trainer is not None:
        rank = trainer.global_rank
        epoch, num_batches = _find_loop_position(trainer)
        position["consumed_samples"] = num_batches * layout.global_batch
    if resumed is not None and resumed.epoch == epoch:
        position = {
            "consumed_samples": resumed.start,
            "resumed_stop": resumed.stop,
            "counted_samples": resumed.skipped_batches * layout.batch_size,
        }
    return ResumableDistributedSampler(
        layout.num_samples,
        seed=seed,
        rank=rank,
        num_replicas=layout.world_size,
        epoch=epoch,
        epoch_size=layout.epoch_size,
        **position,
    )


def _find_loop_position(trainer: Trainer) -> tuple[int, int]:
    """Return the epoch and the batch in it at which Lightning's loops continue."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    epoch, num_batches = epochs.processed, 0
    if epochs.started > epoch:  # stopped inside an epoch, or at its last step
        batches: Any = loop.epoch_loop.batch_progress
        num_batches = 0 if batches.is_last_batch else batches.current.processed
        epoch += batches.is_last_batch
    return epoch, num_batches


def rewrite_loops(
    loops: dict[str, Any], resumed: ResumedEpoch, total_batches: int, global_step: int
) -> None:
    """Set the progress in Lightning's stored loops to the start of a resumed epoch, in place."""
    fit, epoch = loops["fit_loop"], resumed.epoch
    begun = epoch + bool(resumed.skipped_batches or resumed.start)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    fit["epoch_progress"] = {"total": dict(epochs), "current": dict(epochs)}
    fit["epoch_loop.batch_progress"] = {
        "total": _count_all(total_batches),
        "current": _count_all(resumed.skipped_batches),
        "is_last_batch": False,
    }
    fit["epoch_loop.val_loop.batch_progress"] = {
        "total": _count_all(0),
        "current": _count_all(0),
        "is_last_batch": False,
    }
    fit["epoch_loop.state_dict"] = {"_batches_that_stepped": global_step}


def _count_all(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)
