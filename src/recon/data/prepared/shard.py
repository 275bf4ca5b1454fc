"""One file of the prepared layout: some clouds, checked, and written whole or not at all."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.io.image_checks import decode_image
from recon.data.prepared.dataset import FORMAT_VERSION, POINT_FIELDS, checksum, shard_name
from recon.utils.atomic_write import write_atomic


class ShardSummary(NamedTuple):
    """What is known of the clouds of one file, whether it was written or only checked."""

    number: int
    rows: list[int]
    """Entries of the data set that could be read."""
    errors: list[str]
    """A line for each of the others."""
    point_counts: Int[np.ndarray, " k"]
    """Points of each cloud."""
    max_abs_coords: Float[np.ndarray, " k"]
    """Largest absolute coordinate of each cloud."""
    fingerprints: Int[np.ndarray, " k"]
    """A fingerprint of each cloud's coordinates, whatever their order."""
    point_fields: list[str]
    """What points carry beside coordinates."""
    num_images: int
    sentences: dict[str, Any]
    """Sentences: lists of them, and which one each cloud has."""
    num_bytes: int = 0
    sha256: str = ""


class PrepareJob(NamedTuple):
    """What a worker needs to do its share."""

    dataset: PointCloudDataset
    folder: Path | None
    """Where to write; None only checks."""
    with_images: bool
    settings_key: str
    """Of what this is, beside the ids: its name and settings."""


def fingerprint_cloud(points: Float[np.ndarray, "n 3"]) -> int:
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
    recipe: PrepareJob, rows: Sequence[int]
) -> tuple[list[int], list[Cloud], list[bytes], list[str]]:
    read, clouds, pictures, problems = [], [], [], []
    for row in rows:
        try:
            cloud = recipe.dataset.cloud(row)
            picture = _picture(recipe.dataset, row) if recipe.with_images else b""
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
    for name in POINT_FIELDS:
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


def _offsets(lengths: Iterable[int]) -> Int[np.ndarray, " k"]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _stamp(path: Path) -> list[Any]:
    try:
        about = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), about.st_size, about.st_mtime_ns]


def _shard_key(recipe: PrepareJob, rows: Sequence[int]) -> str:
    """Return a checksum of all that a file's content depends on: options, ids, source files."""
    data = recipe.dataset
    ids = [data.ids[row] for row in rows]
    files = dict.fromkeys(path for row in rows for path in data.file_paths(row))
    about = [
        FORMAT_VERSION,
        recipe.settings_key,
        recipe.with_images,
        ids,
        [_stamp(path) for path in files],
    ]
    return checksum(json.dumps(about).encode())


def _sentences(dataset: PointCloudDataset, rows: Sequence[int]) -> dict[str, Any]:
    """List the sentences of some entries, each list once."""
    said = []
    for row in rows:
        try:
            said.append(tuple(dataset.texts(row)))
        except ValueError:  # it has none
            said.append(())
    lists = {texts: number for number, texts in enumerate(dict.fromkeys(filter(None, said)))}
    return {"rows": [lists.get(texts, -1) for texts in said], "lists": [*map(list, lists)]}


def prepare_shard(job: PrepareJob, number: int, rows: Sequence[int]) -> ShardSummary:
    """Check the clouds of one file, and write it unless it is there already."""
    key = _shard_key(job, rows)
    if job.folder is not None and (done := _finished(job.folder, number, key)):
        return done
    read, clouds, pictures, problems = _read(job, rows)
    shard = ShardSummary(
        number,
        read,
        problems,
        np.array([len(cloud.points) for cloud in clouds], dtype=np.int64),
        np.array([np.abs(cloud.points).max() for cloud in clouds], dtype=np.float64),
        np.array([fingerprint_cloud(cloud.points) for cloud in clouds], dtype=np.int64),
        [name for name in POINT_FIELDS[1:] if any(getattr(c, name) is not None for c in clouds)],
        sum(map(bool, pictures)),
        _sentences(job.dataset, read),
    )
    if job.folder is None or not read:
        return shard
    about = {
        "reach": shard.max_abs_coords,
        "prints": shard.fingerprints,
        "rows": np.array(read, dtype=np.int64),
    }
    # One entry: safetensors writes several in any order, and the file would differ by run.
    metadata = {"recon": json.dumps({"key": key, "problems": problems, "said": shard.sentences})}
    content = save(_tensors(clouds, pictures) | about, metadata=metadata)
    write_atomic(job.folder / shard_name(number), content)
    return shard._replace(num_bytes=len(content), sha256=checksum(content))


def _finished(folder: Path, number: int, key: str) -> ShardSummary | None:
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
    except (SafetensorError, KeyError, TypeError, ValueError):  # damaged since: written anew
        return None
    return ShardSummary(
        number,
        found[0].tolist(),
        [],
        np.diff(offsets),
        found[1],
        found[2],
        [name for name in POINT_FIELDS[1:] if name in there],
        int((np.diff(pictures) > 0).sum()),
        about["said"],
        path.stat().st_size,
        checksum(path.read_bytes()),
    )
