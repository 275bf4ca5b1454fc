"""Caches of teacher features: names and features that do not fit together are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from recon.teachers.cached import CachedTextTeacher, FeatureCache, read_cache, write_cache

TENSORS = {"features": torch.ones(2, 1, 4), "mean": torch.zeros(4), "deviation": torch.tensor(1.0)}
NAMES = ["a", "b"]


def write(path: Path, names: object = NAMES, **tensors: torch.Tensor) -> Path:
    metadata = {"names": json.dumps(names), "teacher": "someone"}
    save_file(TENSORS | tensors, path, metadata)
    return path


CHANGES: dict[str, dict[str, Any]] = {
    "no_list": {"names": {"a": 0, "b": 1}},
    "numbers": {"names": ["a", 1]},
    "unprintable": {"names": ["a", "b\n"]},
    "same_name": {"names": ["a", "a"]},
    "fewer_names": {"names": ["a"]},
    "dimensions": {"features": torch.ones(2, 4)},
    "mean": {"mean": torch.zeros(3)},
    "deviations": {"deviation": torch.ones(1)},
    "no_deviation": {"deviation": torch.tensor(0.0)},
    "integers": {"features": torch.ones(2, 1, 4, dtype=torch.int64)},
    "nan": {"features": torch.full((2, 1, 4), torch.nan)},
    "empty": {"names": [], "features": torch.zeros(0, 1, 4)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_caches_that_do_not_fit_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert read_cache(write(path)).names == NAMES
    write(path, **CHANGES[name])
    with pytest.raises(ValueError, match=r"a\.safetensors: not a teacher cache"):
        read_cache(path)


def test_caches_without_metadata_or_features_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tensors in (TENSORS, {"mean": torch.zeros(4)}):
        save_file(tensors, path)
        with pytest.raises(ValueError, match=r"a\.safetensors: not a teacher cache"):
            read_cache(path)


def test_entries_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_cache(path, FeatureCache(NAMES, *TENSORS.values(), teacher="someone"))
    teacher = CachedTextTeacher(path, 4)
    assert list(teacher.names) == NAMES
    teacher.check_coverage({"id": [], "text": NAMES})
    with pytest.raises((ValueError, KeyError), match="z"):
        teacher({"text": ["z"]})
