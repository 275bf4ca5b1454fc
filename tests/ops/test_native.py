import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recon.ops.native import load_library
from recon.ops.neighbors import knn, knn_torch
from recon.ops.pooling import linear_max, linear_max_torch
from recon.ops.sampling import farthest_point_sample

COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))
compiled = pytest.mark.skipif(load_library() is None, reason="no C compiler: torch is used")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)  # later forked processes hang with more threads


@pytest.fixture
def fresh_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RECON_NATIVE", raising=False)
    load_library.cache_clear()
    yield
    load_library.cache_clear()


@pytest.mark.skipif(os.environ.get("RECON_NATIVE") == "0" or not COMPILER, reason="no C compiler")
def test_library_is_built_if_there_is_a_compiler() -> None:
    assert load_library() is not None  # otherwise other tests would be skipped


@pytest.mark.usefixtures("fresh_library")
def test_failed_build_warns_once_and_falls_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho unknown processor >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="cc failed, .*: unknown processor") as record:
        assert [load_library(), load_library()] == [None, None]
    assert len(record) == 1
    assert [*(tmp_path / "cache").rglob("*.so")] == []


@pytest.mark.usefixtures("fresh_library")
def test_a_compiler_that_hangs_is_told_once_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "cc"
    hanging.write_text("#!/bin/sh\nread line < /dev/zero\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("recon.ops.native.COMPILER_TIMEOUT", 0.1)
    with pytest.warns(
        UserWarning, match=r"cc did not finish within 0.1 s, .*RECON_NATIVE=0"
    ) as told:
        assert [load_library(), load_library()] == [None, None]
    assert len(told) == 1


@pytest.mark.usefixtures("fresh_library")
def test_missing_home_folder_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", raise_no_home)
    assert load_library() is None


@compiled
@pytest.mark.usefixtures("two_threads")
def test_kernels_ignore_torch_defaults() -> None:
    clouds, queries = torch.randn(1001, 9, 3), torch.randn(1001, 2, 3)
    weight, bias = torch.randn(5, 3, requires_grad=True), torch.randn(5)
    picked = farthest_point_sample(clouds, 3)
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            neighbors, picked_again = knn(queries, clouds, 4), farthest_point_sample(clouds, 3)
            pooled = linear_max(clouds, weight, bias)
    finally:
        torch.set_default_dtype(torch.float32)
    expected = knn_torch(queries, clouds, 4).sort(-1).values
    assert torch.equal(neighbors.sort(-1).values, expected)
    assert torch.equal(picked_again, picked)
    assert torch.equal(pooled, linear_max_torch(clouds, weight, bias))
