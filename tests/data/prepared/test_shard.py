"""Shards that are damaged, or made from other files, are written again."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from recon.data.datasets.folder import ShapeFolder
from recon.data.prepared.shard import PrepareJob, ShardSummary, prepare_shard


def write(root: Path) -> Path:
    (root / "own").mkdir()
    for number in range(3):
        points = np.random.default_rng(number).normal(size=(9, 3))
        np.savez(root / "own" / f"{number}.npz", points=points, normals=points)
    (root / "out").mkdir()
    return root / "out" / "00000.safetensors"


def run(root: Path, key: str = "options") -> ShardSummary:
    job = PrepareJob(ShapeFolder(root / "own"), root / "out", False, key)
    return prepare_shard(job, 0, [0, 1, 2])


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_shard_is_written_again(damage: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    summary = run(tmp_path)
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "empty": b""}
    path.write_bytes(damaged.get(damage, save({"points": np.zeros((1, 3))})))
    again = run(tmp_path)
    assert path.read_bytes() == content
    assert (again.rows, again.sha256) == (summary.rows, summary.sha256)


def test_a_sound_shard_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path)
    summary = run(tmp_path)
    modified = path.stat().st_mtime_ns
    again = run(tmp_path)
    assert path.stat().st_mtime_ns == modified
    assert again.point_fields == summary.point_fields == ["normals"]
    assert np.array_equal(again.point_counts, summary.point_counts)
    assert np.array_equal(again.fingerprints, summary.fingerprints)
    run(tmp_path, "other options")
    assert path.stat().st_mtime_ns != modified
