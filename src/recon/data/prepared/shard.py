"""Check some clouds of a data set and write them atomically as a shard of the prepared layout."""

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
from recon.data.prepared.layout import FORMAT_VERSION, POINT_FIELDS, checksum, shard_name
from recon.utils.atomic_write import write_atomic


class ShardSummary(NamedTuple):
    """Properties of the clouds of a shard, for the report and the index of its split."""

    number: int
    rows: list[int]
    """Indices of the readable samples in the data set."""
    errors: list[str]
    """A message for each unreadable sample."""
    point_counts: Int[np.ndarray, " k"]
    """Number of points of each cloud."""
    max_abs_coords: Float[np.ndarray, " k"]
    """Largest absolute coordinate of each cloud."""
    fingerprints: Int[np.ndarray, " k"]
    """Fingerprint of each cloud's coordinates, independent of the order of points."""
    point_fields: list[str]
    """Fields of points beside coordinates, such as normals."""
    num_images: int
    sentences: dict[str, Any]
    """`lists` of sentences, and in `rows` the number of each cloud's list, -1 without one."""
    notes: list[tuple[str, str]]
    """Ids of samples, and what reading their files omitted or assumed."""
    num_bytes: int = 0
    sha256: str = ""


class PrepareJob(NamedTuple):
    """Data set and options of a split to prepare, as workers need them."""

    dataset: PointCloudDataset
    folder: Path | None
    """Folder of the split to write; None only checks."""
    with_images: bool
    settings_key: str
    """Name and settings of the data set, serialized; shards of other settings are not reused."""


def fingerprint_cloud(points: Float[np.ndarray, "n 3"]) -> int:
    """Hash the coordinates of a cloud to 64 bits, independent of the order of its points."""
    words = np.ascontiguousarray(points + np.float32(0)).view(np.uint32).astype(np.uint64)
    mixed = words * np.array(
        [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64
    )
    row = mixed.sum(1, dtype=np.uint64)
    row ^= row >> np.uint64(29)
    row *= np.uint64(0xBF58476D1CE4E5B9)
    row ^= row >> np.uint64(32)
    return int(row.sum(dtype=np.uint64).astype(np.int64))


def _read_image(dataset: PointCloudDataset, index: int) -> bytes:
    """Return the image file of a sample, empty without one; raise ValueError if it is damaged."""
    content = dataset.image_bytes(index)
    if content is None:
        return b""
    decode_image(content, f"the image of {dataset.ids[index]}")
    return content


class _Samples(NamedTuple):
    """The readable samples of a shard."""

    rows: list[int]
    clouds: list[Cloud]
    images: list[bytes]


def _read_samples(job: PrepareJob, rows: Sequence[int]) -> tuple[_Samples, list[str]]:
    """Read samples; return the readable ones, and a message for each of the others."""
    samples, errors = _Samples([], [], []), []
    for row in rows:
        try:
            cloud = job.dataset.cloud(row)
            image = _read_image(job.dataset, row) if job.with_images else b""
        except (ValueError, OSError) as error:
            errors.append(str(error).splitlines()[0])
            continue
        samples.rows.append(row)
        samples.clouds.append(cloud)
        samples.images.append(image)
    return samples, errors


def _concat_tensors(clouds: Sequence[Cloud], images: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Concatenate the fields of clouds, with the offsets of each; missing fields have length 0."""
    tensors = {}
    for name in POINT_FIELDS:
        fields = [getattr(cloud, name) for cloud in clouds]
        present = [field for field in fields if field is not None]
        if not present:
            continue
        if name == "colors" and any(field.dtype != np.uint8 for field in present):
            present = [f / np.float32(255) if f.dtype == np.uint8 else f for f in present]
        tensors[name] = np.concatenate(present)
        if name == "point_labels":
            tensors[name] = tensors[name].astype(np.int32)
        tensors[f"{name}_offsets"] = _compute_offsets(0 if f is None else len(f) for f in fields)
    if any(images):
        tensors["images"] = np.frombuffer(b"".join(images), np.uint8)
        tensors["images_offsets"] = _compute_offsets(map(len, images))
    return tensors


def _compute_offsets(lengths: Iterable[int]) -> Int[np.ndarray, " k"]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _stamp_file(path: Path) -> list[Any]:
    """Return a file's path, size and modification time; the path alone if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]


def _hash_inputs(job: PrepareJob, rows: Sequence[int]) -> str:
    """Hash everything that a shard's content depends on: options, ids and source files."""
    data = job.dataset
    ids = [data.ids[row] for row in rows]
    files = dict.fromkeys(path for row in rows for path in data.file_paths(row))
    stamps = [_stamp_file(path) for path in files]
    inputs = [FORMAT_VERSION, job.settings_key, job.with_images, ids, stamps]
    return checksum(json.dumps(inputs).encode())


def _collect_sentences(dataset: PointCloudDataset, rows: Sequence[int]) -> dict[str, Any]:
    """Collect the sentences of some samples, each distinct list once."""
    texts_of_rows = []
    for row in rows:
        try:
            texts_of_rows.append(tuple(dataset.texts(row)))
        except ValueError:  # the data set has no text
            texts_of_rows.append(())
    distinct = dict.fromkeys(filter(None, texts_of_rows))
    numbers = {texts: number for number, texts in enumerate(distinct)}
    return {
        "rows": [numbers.get(texts, -1) for texts in texts_of_rows],
        "lists": [*map(list, numbers)],
    }


def prepare_shard(job: PrepareJob, number: int, rows: Sequence[int]) -> ShardSummary:
    """Check the samples `rows` of a data set, and write their shard unless it is up to date."""
    key = _hash_inputs(job, rows)
    if job.folder is not None and (summary := _load_summary(job.folder, number, key)):
        return summary
    samples, errors = _read_samples(job, rows)
    clouds = samples.clouds
    summary = ShardSummary(
        number,
        samples.rows,
        errors,
        np.array([len(cloud.points) for cloud in clouds], dtype=np.int64),
        np.array([np.abs(cloud.points).max() for cloud in clouds], dtype=np.float64),
        np.array([fingerprint_cloud(cloud.points) for cloud in clouds], dtype=np.int64),
        [name for name in POINT_FIELDS[1:] if any(getattr(c, name) is not None for c in clouds)],
        sum(map(bool, samples.images)),
        _collect_sentences(job.dataset, samples.rows),
        [
            (job.dataset.ids[row], note)
            for row, cloud in zip(samples.rows, clouds, strict=True)
            for note in cloud.notes
        ],
    )
    if job.folder is None or not samples.rows:
        return summary
    tensors = _concat_tensors(clouds, samples.images) | {
        "reach": summary.max_abs_coords,
        "prints": summary.fingerprints,
        "rows": np.array(samples.rows, dtype=np.int64),
    }
    # A single entry: safetensors writes several in random order, and files would differ by run.
    entry = {"key": key, "problems": errors, "said": summary.sentences, "notes": summary.notes}
    content = save(tensors, metadata={"recon": json.dumps(entry)})
    write_atomic(job.folder / shard_name(number), content)
    return summary._replace(num_bytes=len(content), sha256=checksum(content))


def _load_summary(folder: Path, number: int, key: str) -> ShardSummary | None:
    """Return the summary of an existing shard of the same inputs without errors, else None."""
    path = folder / shard_name(number)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            entry = json.loads(file.metadata()["recon"])
            if entry["key"] != key or entry["problems"]:
                return None
            fields = set(file.keys())
            offsets = file.get_tensor("points_offsets")
            image_offsets = file.get_tensor("images_offsets") if "images" in fields else np.zeros(1)
            rows, max_abs_coords, fingerprints = (
                file.get_tensor(name) for name in ("rows", "reach", "prints")
            )
    except (SafetensorError, KeyError, TypeError, ValueError):  # damaged: write it again
        return None
    return ShardSummary(
        number,
        rows.tolist(),
        [],
        np.diff(offsets),
        max_abs_coords,
        fingerprints,
        [name for name in POINT_FIELDS[1:] if name in fields],
        int((np.diff(image_offsets) > 0).sum()),
        entry["said"],
        [(name, note) for name, note in entry.get("notes", ())],
        path.stat().st_size,
        checksum(path.read_bytes()),
    )
