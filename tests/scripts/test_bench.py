"""Benchmark programs: their output files, and equal losses of both paths."""

import json
import os
import resource
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCH = Path(__file__).parents[2] / "scripts/bench"


def run(program: str, *options: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCH / program), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_bench_writes_ratios_and_their_seconds(tmp_path: Path) -> None:
    run("run.py", "only=self,fps", "rounds=1", f"out={tmp_path}")
    results = json.loads((tmp_path / "bench.json").read_text())
    names = {"fps_1024_64", "fps_2048_128", "fps_8192_1200", "self_contrast_128"}
    assert results["ratios"].keys() == names
    for name, ratio in results["ratios"].items():
        seconds = results["seconds"][name]
        assert ratio == pytest.approx(seconds["reference"] / seconds["optimized"], abs=1e-3)
        assert ratio > 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_losses_of_fifty_seeded_steps_equal_the_reference() -> None:
    rows = [line.split(": at most ") for line in run("loss_curves.py").splitlines()[1:]]
    difference = {kind: float(rest.split()[0].rstrip(",")) for kind, rest in rows}
    assert difference["float32"] < 1e-4
    assert difference["bfloat16"] < 5e-3


@pytest.mark.parametrize(("system", "maxrss"), [("darwin", 3 * 2**30), ("freebsd14", 3 * 2**20)])
def test_peak_memory_is_in_gigabytes_without_proc(
    system: str, maxrss: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    scaling = runpy.run_path(str(BENCH / "scaling.py"))
    assert scaling["read_peak_memory"]() < 64
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=maxrss))
    assert scaling["read_peak_memory"]() == 3
