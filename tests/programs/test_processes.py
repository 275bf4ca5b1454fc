"""Two processes compute the same losses and results as one process."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processes import CASES
from trees import write_s3dis

HERE = Path(__file__).parents[1]
TOLERANCES = {"pretrain": 1e-5}
"""Tolerances in single precision, where rounding errors grow; others are 1e-8."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run all cases with one process, and with two that share its batches."""
    folders, rooms = {}, tmp_path_factory.mktemp("rooms")
    write_s3dis(rooms, areas=(1, 2, 5, 6))
    for ranks in (1, 2):
        folders[ranks] = out = tmp_path_factory.mktemp(f"by{ranks}")
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [sys.executable, *(launch if ranks > 1 else []), str(HERE / "processes.py")]
        completed = subprocess.run(
            [*command, str(out), str(rooms), str(ranks)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr[-3000:]
    return folders


def read_metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def is_close(one: Any, two: Any, tolerance: float) -> bool:
    """Compare nested results, floats up to an absolute tolerance."""
    if isinstance(one, dict):
        return [*one] == [*two] and all(is_close(one[k], two[k], tolerance) for k in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(is_close, one, two, [tolerance] * len(one)))
    return one == pytest.approx(two, abs=tolerance) if isinstance(one, float) else one == two


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_logged_metrics_equal_those_of_one_process(case: str, runs: dict[int, Path]) -> None:
    one, two = (read_metrics(runs[ranks] / case) for ranks in (1, 2))
    steps = 6 if case in ("parts", "rooms") else 20
    assert len([row for row in one if any(k.startswith("train/") for k in row)]) == steps
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, abs=TOLERANCES.get(case, 1e-8), rel=0)
    if case == "categories":
        assert any("svm/accuracy_held_out" in row for row in one)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["classify", "parts", "rooms"])
def test_results_equal_those_of_one_process(case: str, runs: dict[int, Path]) -> None:
    """Votes, part segmentation and rooms use every sample once, in the same order."""
    one, two = (json.loads((runs[n] / case / "results.json").read_text()) for n in (1, 2))
    for results in (one, two):
        del results["data"]["batch_size"]  # that of one process
    assert is_close(one, two, 1e-9)


def run_spawned(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recon.train",
            "experiment=pretrain_furniture", "debug=tiny", "trainer=ddp_spawn_debug",
            "~callbacks.report", "trainer.limit_train_batches=10", "trainer.max_epochs=2",
            f"output_dir={folder}", *options]  # fmt: skip
    path = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        command,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_spawned_processes_save_when_their_parent_receives_a_signal(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    interrupt = [
        "+callbacks.interrupt._target_=conftest.InterruptStep",
        "+callbacks.interrupt.step=3",
        "+callbacks.interrupt.parent=true",
        f"+callbacks.interrupt.number={number.value}",
    ]
    completed = run_spawned(tmp_path / "interrupted", *interrupt)
    assert completed.returncode == code, completed.stderr
    logged = read_metrics(tmp_path / "interrupted")
    last = tmp_path / "interrupted" / "checkpoints" / "last.ckpt"
    steps = 1 + int(logged[-1]["step"])
    assert f"stopped after {steps} steps; resume with ckpt_path={last}\n" in completed.stdout
    assert run_spawned(tmp_path / "uninterrupted").returncode == 0
    assert run_spawned(tmp_path / "resumed", f"ckpt_path={last}").returncode == 0
    losses = [
        [row["train/total"] for row in metrics if "train/total" in row]
        for metrics in (
            logged,
            read_metrics(tmp_path / "resumed"),
            read_metrics(tmp_path / "uninterrupted"),
        )
    ]
    assert len(losses[0]) == steps
    assert [*losses[0], *losses[1]] == losses[2]
