"""Check a data set cloud by cloud, and write it in the prepared layout.

Work is done file by file of the layout, in parallel; each file is written whole or not at all, so
that a stopped run goes on after the last one. See `prepared` for what is written.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.prepared import CARRIED, FORMAT, INDEX, checksum, shard_name, write_whole
from recon.data.readers import decode_image


class Shard(NamedTuple):
    """What is known of the clouds of one file, whether it was written or only checked."""

    number: int
    rows: list[int]
    """Entries of the data set that could be read."""
    problems: list[str]
    """A line for each of the others."""
    counts: Int[np.ndarray, " k"]
    """Points of each cloud."""
    reach: Float[np.ndarray, " k"]
    """Largest absolute coordinate of each cloud."""
    prints: Int[np.ndarray, " k"]
    """A fingerprint of each cloud's coordinates, whatever their order."""
    carried: list[str]
    """What points carry beside coordinates."""
    pictures: int
    size: int = 0
    sha256: str = ""


class Recipe(NamedTuple):
    """What a worker needs to do its share."""

    dataset: PointCloudDataset
    folder: Path | None
    """Where to write; None only checks."""
    images: bool
    key: str
    """Of what this is, beside the ids: its name and settings."""


def fingerprint(points: Float[np.ndarray, "n 3"]) -> int:
    """Return a number that equal sets of points share, in any order and count nothing else."""
    words = np.ascontiguousarray(points + np.float32(0)).view(np.uint32).astype(np.uint64)
    mixed = words * np.array(
        [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64
    )
    row = mixed.sum(1, dtype=np.uint64)
    row ^= row >> np.uint64(29)
    row *= np.uint64(0xBF58476D1CE4E5B9)
    row ^= row >> np.uint64(32)
    return int(row.sum(dtype=np.uint64).astype(np.int64))


def _picture(dataset: PointCloudDataset, index: int) -> bytes:
    """Return a picture's file, empty where there is none; raise ValueError for a broken one."""
    content = dataset.image_bytes(index)
    if content is None:
        return b""
    decode_image(content, f"the picture of {dataset.ids[index]}")
    return content


def _read(
    recipe: Recipe, rows: Sequence[int]
) -> tuple[list[int], list[Cloud], list[bytes], list[str]]:
    read, clouds, pictures, problems = [], [], [], []
    for row in rows:
        try:
            cloud = recipe.dataset.cloud(row)
            picture = _picture(recipe.dataset, row) if recipe.images else b""
        except (ValueError, OSError) as error:
            problems.append(str(error).splitlines()[0])
            continue
        read.append(row)
        clouds.append(cloud)
        pictures.append(picture)
    return read, clouds, pictures, problems


def _tensors(clouds: Sequence[Cloud], pictures: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Put clouds one after the other; a field that a cloud lacks takes no room."""
    tensors = {}
    for name in CARRIED:
        fields = [getattr(cloud, name) for cloud in clouds]
        held = [field for field in fields if field is not None]
        if not held:
            continue
        if name == "colors" and any(field.dtype != np.uint8 for field in held):
            held = [f / np.float32(255) if f.dtype == np.uint8 else f for f in held]
        tensors[name] = np.concatenate(held)
        if name == "point_labels":
            tensors[name] = tensors[name].astype(np.int32)
        tensors[f"{name}_offsets"] = _offsets(0 if f is None else len(f) for f in fields)
    if any(pictures):
        tensors["images"] = np.frombuffer(b"".join(pictures), np.uint8)
        tensors["images_offsets"] = _offsets(map(len, pictures))
    return tensors


def _offsets(lengths: Iterator[int]) -> Int[np.ndarray, " k"]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _shard_key(recipe: Recipe, rows: Sequence[int]) -> str:
    ids = [recipe.dataset.ids[row] for row in rows]
    return checksum(json.dumps([FORMAT, recipe.key, recipe.images, ids]).encode())


def do_shard(recipe: Recipe, number: int, rows: Sequence[int]) -> Shard:
    """Check the clouds of one file, and write it unless it is there already."""
    key = _shard_key(recipe, rows)
    if recipe.folder is not None and (done := _finished(recipe.folder, number, key)):
        return done
    read, clouds, pictures, problems = _read(recipe, rows)
    shard = Shard(
        number,
        read,
        problems,
        np.array([len(cloud.points) for cloud in clouds], dtype=np.int64),
        np.array([np.abs(cloud.points).max() for cloud in clouds], dtype=np.float64),
        np.array([fingerprint(cloud.points) for cloud in clouds], dtype=np.int64),
        [name for name in CARRIED[1:] if any(getattr(c, name) is not None for c in clouds)],
        sum(map(bool, pictures)),
    )
    if recipe.folder is None or not read:
        return shard
    about = {"reach": shard.reach, "prints": shard.prints, "rows": np.array(read, dtype=np.int64)}
    # One entry: safetensors writes several in any order, and the file would differ by run.
    metadata = {"recon": json.dumps({"key": key, "problems": problems})}
    content = save(_tensors(clouds, pictures) | about, metadata=metadata)
    write_whole(recipe.folder / shard_name(number), content)
    return shard._replace(size=len(content), sha256=checksum(content))


def _finished(folder: Path, number: int, key: str) -> Shard | None:
    """Return what an earlier run found, where it wrote this very file and nothing was amiss."""
    path = folder / shard_name(number)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()["recon"])
            if about["key"] != key or about["problems"]:
                return None
            there = set(file.keys())
            offsets = file.get_tensor("points_offsets")
            pictures = file.get_tensor("images_offsets") if "images" in there else np.zeros(1)
            found = [file.get_tensor(name) for name in ("rows", "reach", "prints")]
    except (SafetensorError, KeyError, TypeError, ValueError):  # damaged since: it is written anew
        return None
    return Shard(
        number,
        found[0].tolist(),
        [],
        np.diff(offsets),
        found[1],
        found[2],
        [name for name in CARRIED[1:] if name in there],
        int((np.diff(pictures) > 0).sum()),
        path.stat().st_size,
        checksum(path.read_bytes()),
    )


_recipe: Recipe


def _start(recipe: Recipe) -> None:
    global _recipe
    _recipe = recipe


def _work(number: int, rows: Sequence[int]) -> Shard:
    return do_shard(_recipe, number, rows)


def do_split(recipe: Recipe, workers: int, advance: Callable[[int], None]) -> list[Shard]:
    """Do all files of a split, `workers` at a time; `advance` is told of clouds as they are done.

    Raises ValueError where a worker was killed; what is finished stays.
    """
    count, size = len(recipe.dataset), recipe.dataset.shard
    pieces = [range(start, min(start + size, count)) for start in range(0, count, size)]
    if recipe.folder is not None:
        recipe.folder.mkdir(parents=True, exist_ok=True)
    shards = []
    if workers < 2 or recipe.dataset.in_memory:
        for number, rows in enumerate(pieces):
            shards.append(do_shard(recipe, number, rows))
            advance(len(rows))
        return shards
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(recipe,)) as pool:
        futures = {pool.submit(_work, number, rows): rows for number, rows in enumerate(pieces)}
        try:
            for future in as_completed(futures):
                shards.append(future.result())
                advance(len(futures[future]))
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker was killed, often for want of memory: run again with fewer "
                "(workers=1); finished files are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(shards, key=lambda shard: shard.number)


def write_index(recipe: Recipe, shards: Sequence[Shard], settings: dict[str, Any]) -> None:
    """Write the list of a split's clouds, after all their files."""
    assert recipe.folder is not None
    dataset = recipe.dataset
    rows = [row for shard in shards for row in shard.rows]
    said = [tuple(_texts(dataset, row)) for row in rows]
    lists = {texts: number for number, texts in enumerate(dict.fromkeys(filter(None, said)))}
    index = {
        "format": FORMAT,
        "settings": settings,
        "up": dataset.up,
        "mirrored": dataset.mirrored,
        "classes": list(dataset.classes),
        "point_classes": list(dataset.point_classes),
        "parts": {name: list(own) for name, own in dataset.parts.items()},
        "ids": [dataset.ids[row] for row in rows],
        "labels": dataset.labels[rows].tolist() if len(dataset.labels) else [],
        "categories": _each(dataset.category, rows),
        "sentences": {
            "rows": [lists.get(texts, -1) for texts in said],
            "lists": [list(texts) for texts in lists],
        },
        "files": [
            {
                "name": shard_name(shard.number),
                "clouds": len(shard.rows),
                "bytes": shard.size,
                "sha256": shard.sha256,
            }
            for shard in shards
            if shard.rows
        ],
    }
    write_whole(recipe.folder / INDEX, json.dumps(index).encode())


def _each(ask: Callable[[int], int], rows: Sequence[int]) -> list[int]:
    try:
        return [ask(row) for row in rows]
    except ValueError:  # the data set has none
        return []


def _texts(dataset: PointCloudDataset, row: int) -> Sequence[str]:
    try:
        return dataset.texts(row)
    except ValueError:
        return ()
