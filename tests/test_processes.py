"""Two processes do what one does, step for step."""

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
from trees import s3dis

HERE = Path(__file__).parent
WITHIN = {"pretrain": 1e-5}
"""In single precision rounding grows from step to step; in double it stays where it is."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run all cases by one process and by two, which share its batches."""
    found, rooms = {}, tmp_path_factory.mktemp("rooms")
    s3dis(rooms, areas=(1, 2, 5, 6))
    for ranks in (1, 2):
        found[ranks] = out = tmp_path_factory.mktemp(f"by{ranks}")
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [sys.executable, *(launch if ranks > 1 else []), str(HERE / "processes.py")]
        done = subprocess.run(
            [*command, str(out), str(rooms), str(ranks)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return found


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def same(one: Any, two: Any, within: float) -> bool:
    """Compare results deeply, numbers by `within`."""
    if isinstance(one, dict):
        return [*one] == [*two] and all(same(one[k], two[k], within) for k in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two, [within] * len(one)))
    return one == pytest.approx(two, abs=within) if isinstance(one, float) else one == two


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_loss_and_measure_is_that_of_one_process(case: str, runs: dict[int, Path]) -> None:
    one, two = (rows(runs[ranks] / case) for ranks in (1, 2))
    steps = 6 if case in ("parts", "rooms") else 20
    assert len([row for row in one if any(k.startswith("train/") for k in row)]) == steps
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, abs=WITHIN.get(case, 1e-8), rel=0)
    if case == "categories":
        assert any("svm/accuracy_held_out" in row for row in one)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["classify", "parts", "rooms"])
def test_tests_find_what_one_process_finds(case: str, runs: dict[int, Path]) -> None:
    """Votes, the parts of shapes and whole rooms: every sample once, in the same order."""
    one, two = (json.loads((runs[n] / case / "results.json").read_text()) for n in (1, 2))
    assert same(one, two, 1e-9)


def spawned(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    told = ["experiment=pretrain_furniture", "debug=tiny", "trainer=ddp_spawn_debug",
            "~callbacks.report", "trainer.limit_train_batches=10", "trainer.max_epochs=2",
            f"output_dir={folder}", *options]  # fmt: skip
    path = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "recon.train", *told],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_spawned_processes_save_when_the_one_that_spawned_them_is_asked_to_stop(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    cut = ["+callbacks.cut._target_=conftest.InterruptStep", "+callbacks.cut.step=3",
           "+callbacks.cut.parent=true", f"+callbacks.cut.number={number.value}"]  # fmt: skip
    ended = spawned(tmp_path / "cut", *cut)
    assert ended.returncode == code, ended.stderr
    before = rows(tmp_path / "cut")
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    steps = 1 + int(before[-1]["step"])
    assert f"stopped after {steps} steps; go on with ckpt_path={last}\n" in ended.stdout
    assert spawned(tmp_path / "whole").returncode == 0
    assert spawned(tmp_path / "on", f"ckpt_path={last}").returncode == 0
    losses = [
        [row["train/total"] for row in found if "train/total" in row]
        for found in (before, rows(tmp_path / "on"), rows(tmp_path / "whole"))
    ]
    assert len(losses[0]) == steps
    assert [*losses[0], *losses[1]] == losses[2]
