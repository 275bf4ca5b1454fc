"""Check a split of a data set and write it in the prepared layout, shard by shard in parallel.

A stopped run resumes after the finished shards. See `layout` for the files.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any

from recon.data.dataset import PointCloudDataset
from recon.data.prepared.layout import FORMAT_VERSION, INDEX_NAME, shard_name
from recon.data.prepared.shard import PrepareJob, ShardSummary, prepare_shard
from recon.utils.atomic_write import write_atomic

MAX_SHARD_SOURCE_BYTES = 2**28
"""Maximum total size of the source files of a shard of several clouds, in bytes."""


def plan_shards(dataset: PointCloudDataset) -> list[range]:
    """Divide a data set into shards, limited by `shard_size` and `MAX_SHARD_SOURCE_BYTES`."""
    shards, start, total = [], 0, 0
    for row in range(len(dataset)):
        size = 0 if dataset.in_memory else sum(map(_file_size, dataset.file_paths(row)))
        if row > start and (
            row - start >= dataset.shard_size or total + size > MAX_SHARD_SOURCE_BYTES
        ):
            shards.append(range(start, row))
            start, total = row, 0
        total += size
    return [*shards, range(start, len(dataset))] if len(dataset) else shards


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


_worker_job: PrepareJob


def _initialize_worker(job: PrepareJob) -> None:
    global _worker_job
    _worker_job = job
    Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent process was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _prepare_shard_in_worker(number: int, rows: Sequence[int]) -> ShardSummary:
    return prepare_shard(_worker_job, number, rows)


def prepare_split(
    job: PrepareJob, num_workers: int, advance: Callable[[int], None]
) -> list[ShardSummary]:
    """Prepare all shards of a split with `num_workers` processes, and return their summaries.

    `advance` is called with the number of clouds of each finished shard. Raises ValueError if a
    worker was killed; finished shards stay.
    """
    plan, shards = plan_shards(job.dataset), list[ShardSummary]()
    if job.folder is not None:
        job.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in job.folder.glob("*.part"):
            unfinished.unlink(missing_ok=True)
    if num_workers < 2 or job.dataset.in_memory:
        for number, rows in enumerate(plan):
            shards.append(prepare_shard(job, number, rows))
            advance(len(rows))
        return shards
    with ProcessPoolExecutor(num_workers, initializer=_initialize_worker, initargs=(job,)) as pool:
        futures = {
            pool.submit(_prepare_shard_in_worker, number, rows): rows
            for number, rows in enumerate(plan)
        }
        try:
            for future in as_completed(futures):
                shards.append(future.result())
                advance(len(futures[future]))
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker was killed, often because it ran out of memory: run the same command "
                "with fewer workers (num_workers=1); finished shards are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(shards, key=lambda shard: shard.number)


def write_index(job: PrepareJob, shards: Sequence[ShardSummary], settings: dict[str, Any]) -> None:
    """Write the index of a split, after all of its shards."""
    assert job.folder is not None
    dataset = job.dataset
    rows = [row for shard in shards for row in shard.rows]
    index = {
        "format": FORMAT_VERSION,
        "settings": settings,
        "up": dataset.up,
        "mirrored": dataset.mirrored,
        "classes": list(dataset.classes),
        "point_classes": list(dataset.point_classes),
        "parts": {name: list(numbers) for name, numbers in dataset.parts.items()},
        "ids": [dataset.ids[row] for row in rows],
        "labels": dataset.labels[rows].tolist() if len(dataset.labels) else [],
        "families": dataset.families[rows].tolist() if len(dataset.families) else [],
        "categories": _collect_categories(dataset, rows),
        "sentences": _merge_sentences(shards),
        "files": [
            {
                "name": shard_name(shard.number),
                "clouds": len(shard.rows),
                "bytes": shard.num_bytes,
                "sha256": shard.sha256,
            }
            for shard in shards
            if shard.rows
        ],
    }
    write_atomic(job.folder / INDEX_NAME, json.dumps(index).encode())


def _merge_sentences(shards: Sequence[ShardSummary]) -> dict[str, Any]:
    """Merge the sentences of shards, each distinct list once."""
    lists: dict[tuple[str, ...], int] = {}
    rows: list[int] = []
    for shard in shards:
        numbers = [lists.setdefault(tuple(texts), len(lists)) for texts in shard.sentences["lists"]]
        rows += [-1 if row < 0 else numbers[row] for row in shard.sentences["rows"]]
    return {"rows": rows, "lists": [list(texts) for texts in lists]}


def _collect_categories(dataset: PointCloudDataset, rows: Sequence[int]) -> list[int]:
    try:
        return [dataset.category(row) for row in rows]
    except ValueError:  # the data set has no categories
        return []
