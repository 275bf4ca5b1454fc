"""Inject faults into training, preparation and embedding jobs, and count lost steps and files.

python scripts/stress/faults.py [--short] [--only killed] [--seed 0] [--out stress.json]

A fault is survived if the results equal those of an undisturbed run: losses, samples and their
seeds, random state, learning rates, weights and optimizer state of each step, and the bytes of
each file. Lost items are steps that are missing or differ, and partial files. Needs Linux or macOS.
"""

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from workloads import (
    NUM_STEPS,
    kill_after,
    list_corrupt_checkpoints,
    read_files,
    read_steps,
    start_embedding,
    start_preparing,
    start_training,
    wait_for_exit,
    write_shapes,
)

FaultFunction = Callable[[Path, random.Random], "list[str]"]


class Baseline(NamedTuple):
    """An undisturbed run, for comparison."""

    folder: Path
    steps: dict[int, dict[str, object]]
    seconds: float
    prepared: dict[str, bytes]
    """Files of an undisturbed preparation of `folder / "shapes"`."""
    checkpoint: Path
    embedded: dict[str, bytes]
    """Files of the feature table of the shapes, written with `checkpoint`."""


def build_baseline(folder: Path) -> Baseline:
    """Train, prepare and embed once without a fault."""
    if wait_for_exit(start_training(folder / "first")):
        raise RuntimeError((folder / "first" / "log.txt").read_text())
    start = time.monotonic()
    exit_code = wait_for_exit(start_training(folder / "second"))
    seconds = time.monotonic() - start
    steps = read_steps(folder / "first")
    if exit_code or len(steps) != NUM_STEPS or read_steps(folder / "second") != steps:
        raise RuntimeError("two undisturbed trainings differ")
    write_shapes(folder / "shapes")
    if wait_for_exit(start_preparing(folder / "shapes", folder / "prepared")):
        raise RuntimeError((folder / "prepared" / "log.txt").read_text())
    checkpoint = folder / "first" / "run" / "checkpoints" / "last.ckpt"
    if wait_for_exit(start_embedding(checkpoint, folder / "shapes", folder / "embedded")):
        raise RuntimeError((folder / "embedded" / "log.txt").read_text())
    outputs = [read_files(folder / name / "out") for name in ("prepared", "embedded")]
    return Baseline(folder, steps, seconds, outputs[0], checkpoint, outputs[1])


class Faults:
    """Faults, one per method, which injects it in a folder and returns the lost items."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def finish(self, folder: Path, *options: str) -> list[str]:
        """Resume a training to its end; return the differences to the baseline."""
        lost = list_corrupt_checkpoints(folder)
        if wait_for_exit(start_training(folder, *options)):
            return [*lost, (folder / "log.txt").read_text()[-2000:]]
        try:
            steps = read_steps(folder)
        except ValueError as error:
            return [*lost, str(error)]
        differing = [s for s, record in self.baseline.steps.items() if steps.get(s) != record]
        return [*lost, *(f"step {step} is missing or differs" for step in differing)]

    def killed_in_training(self, folder: Path, rng: random.Random) -> list[str]:
        latest = 0.5 * self.baseline.seconds
        while True:
            child, seconds = start_training(folder), rng.uniform(0, latest)
            if kill_after(child, seconds, lambda: bool(read_steps(folder))):
                break
            shutil.rmtree(folder)  # it was already finished
            latest = seconds
        if rng.random() < 0.3:  # kill it once more, at any time after its start
            kill_after(start_training(folder), rng.uniform(0, latest), lambda: True)
        return self.finish(folder)

    def killed_in_a_checkpoint(self, folder: Path, rng: random.Random) -> list[str]:
        """Kill a training during writing, before fsync, or between link and rename."""
        call = rng.choice(["write", "fsync", "link", "replace"])
        at, size = (
            rng.randint(1, 2) if call == "link" else rng.randint(2, 20),
            rng.randint(1, 9999),
        )

        def before() -> None:
            if call == "write":
                _kill_while_writing(size, at)
            elif call == "replace":
                _kill_at_call(Path, "replace", at)
            else:
                _kill_at_call(os, call, at)

        status = wait_for_exit(start_training(folder, before=before))
        errors = [] if status < 0 else [f"was not killed, but exited with {status}"]
        return errors + self.finish(folder)

    def killed_in_preparing(self, folder: Path, rng: random.Random) -> list[str]:
        root = self.baseline.folder / "shapes"
        return _kill_and_restart(
            lambda: start_preparing(root, folder), folder, rng, self.baseline.prepared
        )

    def killed_in_embedding(self, folder: Path, rng: random.Random) -> list[str]:
        baseline = self.baseline
        start = lambda: start_embedding(  # noqa: E731
            baseline.checkpoint, baseline.folder / "shapes", folder
        )
        return _kill_and_restart(start, folder, rng, baseline.embedded)

    def interrupted(self, folder: Path, rng: random.Random) -> list[str]:
        """Send SIGTERM or Ctrl-C: the step is finished and saved, and the checkpoint is printed."""
        child, number = start_training(folder), rng.choice([signal.SIGTERM, signal.SIGINT])
        while not read_steps(folder):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3 * self.baseline.seconds))
        os.kill(child, number)
        wait_for_exit(child)
        count = len(read_steps(folder))
        hint = f"stopped after {count} steps; resume with ckpt_path="
        log = (folder / "log.txt").read_text()
        errors = (
            []
            if count == NUM_STEPS or hint in log
            else [f"{number.name}: no resume hint: {log[-500:]}"]
        )
        return errors + self.finish(folder)

    def damaged_checkpoint(self, folder: Path, rng: random.Random) -> list[str]:
        child = start_training(folder)
        kill_after(child, 0.1, lambda: len(read_steps(folder)) > rng.randint(7, 9))
        last = folder / "run" / "checkpoints" / "last.ckpt"
        content = bytearray(last.read_bytes())
        damage = rng.choice(["truncated", "bit flip", "emptied", "deleted"])
        if damage == "bit flip":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        size = {"truncated": len(content) // 2, "emptied": 0}.get(damage, len(content))
        last.write_bytes(content[:size])
        if damage == "deleted":
            last.unlink()
        lost = self.finish_from_previous(folder)
        return [f"{damage}: {line}" for line in lost]

    def finish_from_previous(self, folder: Path) -> list[str]:
        wait_for_exit(start_training(folder))
        steps = read_steps(folder)
        differing = [s for s, record in self.baseline.steps.items() if steps.get(s) != record]
        return [f"step {step} is missing or differs" for step in differing]

    def full_disk(self, folder: Path, rng: random.Random) -> list[str]:
        """Simulate a full disk from one write on: fsync fails, or the size of files is limited."""
        at, limited = rng.randint(5, 20), rng.random() < 0.5
        if limited:
            wait_for_exit(
                start_training(folder, before=lambda: _fill_disk_while_writing(50_000, at))
            )
        else:
            wait_for_exit(
                start_training(folder, before=lambda: _fill_disk_at_call(os, "fsync", at))
            )
        log = (folder / "log.txt").read_text()
        errors = [] if "cannot be written" in log and "Traceback" not in log else [log[-2000:]]
        return errors + self.finish(folder)

    def out_of_memory(self, folder: Path, rng: random.Random) -> list[str]:
        return self._inject_and_finish(folder, rng, "memory", "accumulate_grad_batches")

    def not_finite(self, folder: Path, rng: random.Random) -> list[str]:
        return self._inject_and_finish(
            folder, rng, rng.choice(["overflow", "gradient"]), "samples: "
        )

    def _inject_and_finish(
        self, folder: Path, rng: random.Random, name: str, hint: str
    ) -> list[str]:
        fault = [
            f"+callbacks.aa_fault.{k}"
            for k in ("_target_=fault_callbacks.InjectFault", f"fault={name}")
        ]
        step = rng.randint(1, NUM_STEPS - 2)
        wait_for_exit(start_training(folder, *fault, f"+callbacks.aa_fault.step={step}"))
        log = (folder / "log.txt").read_text()
        errors = [] if hint in log and "Traceback" not in log else [log[-2000:]]
        return errors + self.finish(folder)

    def dead_worker(self, folder: Path, rng: random.Random) -> list[str]:
        fault = ["+callbacks.kill._target_=fault_callbacks.KillWorker", "data.num_workers=1"]
        wait_for_exit(
            start_training(folder, *fault, f"+callbacks.kill.step={rng.randint(1, NUM_STEPS - 3)}")
        )
        log = (folder / "log.txt").read_text()
        errors = [] if "a data-loading worker (process " in log else [log[-2000:]]
        return errors + self.finish(folder)

    def clock_jumps(self, folder: Path, rng: random.Random) -> list[str]:
        """Change the clock and file times by years in a training that is killed and resumed."""
        child = start_training(folder, before=_randomize_clock)
        kill_after(child, 0.1, lambda: len(read_steps(folder)) > 7)
        for path in (folder / "run" / "checkpoints").glob("*.ckpt"):
            file_time = rng.uniform(0, 4e9)
            os.utime(path, (file_time, file_time))
        return self.finish(folder)

    def second_writer(self, folder: Path, rng: random.Random) -> list[str]:
        """Start a second program in the folder of a running training or preparation."""
        baseline = self.baseline
        is_training = rng.random() < 0.5

        def start() -> int:
            return (
                start_training(folder)
                if is_training
                else start_preparing(baseline.folder / "shapes", folder)
            )

        first = start()
        while not (read_steps(folder) or any((folder / "out").glob("*/*"))):
            time.sleep(0.005)
        os.kill(first, signal.SIGSTOP)  # paused, but still running
        second_exit_code = wait_for_exit(start())
        os.kill(first, signal.SIGCONT)
        first_exit_code = wait_for_exit(first)
        log = (folder / "log.txt").read_text()
        errors = (
            []
            if second_exit_code and not first_exit_code and "is being written by process" in log
            else [log]
        )
        if is_training:
            return errors + self.finish(folder)
        return errors + (
            [] if read_files(folder / "out") == baseline.prepared else ["files differ"]
        )


def _kill_and_restart(
    start: Callable[[], int], folder: Path, rng: random.Random, expected: dict[str, bytes]
) -> list[str]:
    """Kill a program after its first file, restart it, and return the lost items."""
    latest = 0.4
    while True:
        child, seconds = start(), rng.uniform(0, latest)
        if kill_after(child, seconds, lambda: any((folder / "out").glob("*/*"))):
            break
        shutil.rmtree(folder)  # it was already finished
        latest = seconds
    remaining = read_files(folder / "out")
    lost = [
        f"{n} is a partial file" for n, x in remaining.items() if n in expected and x != expected[n]
    ]
    if wait_for_exit(start()):
        lost.append((folder / "log.txt").read_text()[-2000:])
    return lost + (["the files differ"] if read_files(folder / "out") != expected else [])


def _kill_at_call(owner: object, name: str, at: int) -> None:
    """Kill this process at call number `at` of a function."""
    real, count = getattr(owner, name), iter(range(1, 10**9))

    def call(*arguments: object, **named: object) -> object:
        if next(count) == at:
            os.killpg(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(owner, name, call)


def _run_at_open(at: int, act: Callable[[], None]) -> None:
    """Call `act` when partial file number `at` is opened."""
    real, count = Path.open, iter(range(1, 10**9))

    def call(path: Path, *arguments: object, **named: object) -> object:
        if path.suffix == ".part" and next(count) == at:
            act()
        return real(path, *arguments, **named)  # type: ignore[call-overload]

    Path.open = call  # type: ignore[method-assign,assignment]


def _kill_while_writing(size: int, at: int) -> None:
    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    _run_at_open(at, act)


def _fill_disk_while_writing(size: int, at: int) -> None:
    _run_at_open(at, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


def _fill_disk_at_call(owner: object, name: str, at: int) -> None:
    """Let a function fail with ENOSPC from call number `at` on."""
    real, count = getattr(owner, name), iter(range(1, 10**9))

    def call(*arguments: object) -> object:
        if next(count) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    setattr(owner, name, call)


def _randomize_clock() -> None:
    real, rng = time.time, random.Random(0)
    time.time = lambda: real() + rng.uniform(-1e9, 1e9)


TRIAL_COUNTS: dict[str, tuple[int, int]] = {
    "killed_in_training": (12, 2),
    "killed_in_a_checkpoint": (12, 3),
    "killed_in_preparing": (8, 1),
    "killed_in_embedding": (8, 1),
    "interrupted": (4, 1),
    "damaged_checkpoint": (6, 1),
    "full_disk": (4, 1),
    "out_of_memory": (2, 1),
    "not_finite": (2, 1),
    "dead_worker": (2, 1),
    "clock_jumps": (2, 1),
    "second_writer": (4, 1),
}
"""Number of trials of each fault, in the full and in the short version."""


def iter_trials(baseline: Baseline, *, short: bool) -> Iterator[tuple[str, FaultFunction, int]]:
    """Yield the faults and their number of trials."""
    faults = Faults(baseline)
    for name, counts in TRIAL_COUNTS.items():
        yield name.replace("_", " "), getattr(faults, name), counts[short]


def main() -> None:
    """Run all trials, print a table, and fail if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="a few of each, about a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only faults whose names start with this")
    parser.add_argument("--out", type=Path, help="also write the results as JSON")
    args = parser.parse_args()
    if not any(name.replace("_", " ").startswith(args.only) for name in TRIAL_COUNTS):
        parser.error(f"--only {args.only}: choose among {', '.join(TRIAL_COUNTS)}")
    rng, lost = random.Random(args.seed), list[str]()
    rows: list[tuple[str, int, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="recon-stress-") as temporary_folder:
        folder = Path(temporary_folder)
        baseline = build_baseline(folder)
        for name, inject, count in iter_trials(baseline, short=args.short):
            if not name.startswith(args.only):
                continue
            losses = [inject(folder / f"{name}-{number}", rng) for number in range(count)]
            survived = sum(not items for items in losses)
            rows.append((name, count, survived, sum(map(len, losses))))
            lost += [
                f"{name} {number}: {item}" for number, items in enumerate(losses) for item in items
            ]
            print(f"{name}: {survived} of {count} survived", flush=True)
    injected, survived, num_lost = (sum(int(row[i]) for row in rows) for i in (1, 2, 3))
    total = ("all", injected, survived, num_lost)
    table = Table("fault", "injected", "survived", "items lost", box=SIMPLE)
    for row in (*rows, total):
        table.add_row(*map(str, row))
    Console().print(table)
    if args.out:
        names = ("fault", "injected", "survived", "lost")
        args.out.write_text(json.dumps([dict(zip(names, r, strict=True)) for r in (*rows, total)]))
    if lost:
        sys.exit("\n".join(lost))


if __name__ == "__main__":
    main()
