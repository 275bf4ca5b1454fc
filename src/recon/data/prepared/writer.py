"""Check a data set cloud by cloud, and write it in the prepared layout.

Work is done file by file of the layout, in parallel, so that a stopped run goes on after the last
finished one. See `prepared` for what is written.
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
from recon.data.prepared.dataset import FORMAT_VERSION, INDEX_NAME, shard_name
from recon.data.prepared.shard import PrepareJob, ShardSummary, prepare_shard
from recon.utils.atomic_write import write_atomic

MAX_SHARD_SOURCE_BYTES = 2**28
"""Of the source files that make up one file."""


def plan_shards(dataset: PointCloudDataset) -> list[range]:
    """Part a data set's entries into those of one file: so many, and so many bytes, at most."""
    parts, start, held = [], 0, 0
    for row in range(len(dataset)):
        size = 0 if dataset.in_memory else sum(_size(path) for path in dataset.file_paths(row))
        if row > start and (
            row - start >= dataset.shard_size or held + size > MAX_SHARD_SOURCE_BYTES
        ):
            parts.append(range(start, row))
            start, held = row, 0
        held += size
    return [*parts, range(start, len(dataset))] if len(dataset) else parts


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


_recipe: PrepareJob


def _start(recipe: PrepareJob) -> None:
    global _recipe
    _recipe = recipe
    Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this process when the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(number: int, rows: Sequence[int]) -> ShardSummary:
    return prepare_shard(_recipe, number, rows)


def prepare_split(
    job: PrepareJob, num_workers: int, advance: Callable[[int], None]
) -> list[ShardSummary]:
    """Do all files of a split, `workers` at a time; `advance` is told of clouds as they are done.

    Raises ValueError where a worker was killed; what is finished stays.
    """
    parts, shards = plan_shards(job.dataset), list[ShardSummary]()
    if job.folder is not None:
        job.folder.mkdir(parents=True, exist_ok=True)
        for left in job.folder.glob("*.part"):
            left.unlink(missing_ok=True)
    if num_workers < 2 or job.dataset.in_memory:
        for number, rows in enumerate(parts):
            shards.append(prepare_shard(job, number, rows))
            advance(len(rows))
        return shards
    with ProcessPoolExecutor(num_workers, initializer=_start, initargs=(job,)) as pool:
        futures = {pool.submit(_work, number, rows): rows for number, rows in enumerate(parts)}
        try:
            for future in as_completed(futures):
                shards.append(future.result())
                advance(len(futures[future]))
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker was killed, often for want of memory: run again with fewer "
                "(num_workers=1); finished files are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(shards, key=lambda shard: shard.number)


def write_index(job: PrepareJob, shards: Sequence[ShardSummary], settings: dict[str, Any]) -> None:
    """Write the list of a split's clouds, after all their files."""
    assert job.folder is not None
    dataset = job.dataset
    rows = [row for shard in shards for row in shard.rows]
    lists: dict[tuple[str, ...], int] = {}
    said = []
    for shard in shards:
        numbers = [lists.setdefault(tuple(texts), len(lists)) for texts in shard.sentences["lists"]]
        said += [-1 if row < 0 else numbers[row] for row in shard.sentences["rows"]]
    index = {
        "format": FORMAT_VERSION,
        "settings": settings,
        "up": dataset.up,
        "mirrored": dataset.mirrored,
        "classes": list(dataset.classes),
        "point_classes": list(dataset.point_classes),
        "parts": {name: list(own) for name, own in dataset.parts.items()},
        "ids": [dataset.ids[row] for row in rows],
        "labels": dataset.labels[rows].tolist() if len(dataset.labels) else [],
        "families": dataset.families[rows].tolist() if len(dataset.families) else [],
        "categories": _each(dataset.category, rows),
        "sentences": {
            "rows": said,
            "lists": [list(texts) for texts in lists],
        },
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


def _each(ask: Callable[[int], int], rows: Sequence[int]) -> list[int]:
    try:
        return [ask(row) for row in rows]
    except ValueError:  # the data set has none
        return []
