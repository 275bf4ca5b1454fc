"""Run short training, preparation and embedding jobs in child processes."""

import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor

from recon.checkpoints.reader import read_checkpoint
from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.embed import embed
from recon.prepare import prepare
from recon.train import train

NUM_STEPS = 18
TRAIN_OPTIONS = (
    "experiment=pretrain_furniture", "debug=tiny", "~callbacks.report", "callbacks=within_epochs",
    "callbacks.within.every_n_train_steps=1", "trainer.limit_train_batches=6",
    "trainer.max_epochs=3",
)  # fmt: skip
TIMEOUT_SECONDS = 120.0
"""Maximum duration of one job."""


def checksum(value: Any) -> str:
    """Return a checksum of nested tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()[:16]


class StepRecorder(Callback):
    """Record each step before it is saved: loss, samples, random state, rates and all state."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        self._loss, self._random = float(loss).hex(), checksum(torch.get_rng_state())

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        optimizer = trainer.optimizers[0]
        line = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "loss": self._loss,
            "samples": list(zip(batch["id"], batch["seed"].tolist(), strict=True)),
            "random": self._random,
            "rates": [group["lr"] for group in optimizer.param_groups],
            "state": checksum([*module.state_dict().values()]),
            "moments": checksum([*optimizer.state_dict()["state"].values()]),
        }
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


def read_steps(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the records of all steps; raise ValueError if two records of a step differ."""
    steps: dict[int, dict[str, Any]] = {}
    path = folder / "steps.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else ():
        record = json.loads(line)
        if steps.setdefault(record["step"], record) != record:
            earlier = steps[record["step"]]
            changed = [key for key, value in record.items() if earlier[key] != value]
            raise ValueError(f"{path}: step {record['step']} differs in {', '.join(changed)}")
    return steps


def run_in_child(work: Callable[[], object], log: Path) -> int:
    """Run a function in a child process with a new process group; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(out, number)
        with one_line_errors():
            work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 3
        print(error.code, flush=True)
    except BaseException:
        traceback.print_exc()
        code = 4
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_training(folder: Path, *options: str, before: Callable[[], object] | None = None) -> int:
    """Train in a child process, from the last checkpoint of the folder if there is one."""
    last = folder / "run" / "checkpoints" / "last.ckpt"
    resume = [f"ckpt_path={last}"] if any(last.parent.glob("*.ckpt")) else []
    recorder = {"_target_": "workloads.StepRecorder", "path": str(folder / "steps.jsonl")}

    def work(cfg: DictConfig) -> None:
        cfg.callbacks = {"recorder": recorder, **cfg.callbacks}  # runs before the other callbacks
        train(cfg)

    overrides = [f"output_dir={folder / 'run'}", *resume, *options]
    return start_job("train", work, [*TRAIN_OPTIONS, *overrides], folder, before)


def write_shapes(root: Path, count: int = 1536) -> None:
    """Write shapes that fill six files of the prepared layout."""
    root.mkdir(parents=True)
    for row in range(count):
        rng = np.random.default_rng(row)
        np.save(root / f"{row:04d}.npy", rng.normal(size=(1000, 3)).astype(np.float32))


def start_job(
    name: str,
    work: Callable[[DictConfig], object],
    options: Sequence[str],
    folder: Path,
    before: Callable[[], object] | None = None,
) -> int:
    """Run a program in a child process with these options."""
    folder.mkdir(parents=True, exist_ok=True)

    def compose_and_run() -> None:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose(name, list(options))
        if before is not None:
            before()
        work(cfg)

    return run_in_child(compose_and_run, folder / "log.txt")


def start_preparing(root: Path, folder: Path) -> int:
    """Prepare shapes in a child process."""
    options = ["data=folder", f"data.root={root}", f"out={folder / 'out'}", "images=false"]
    return start_job("prepare", prepare, [*options, "num_workers=2"], folder)


def start_embedding(checkpoint: Path, root: Path, folder: Path) -> int:
    """Embed shapes in a child process."""
    options = [f"checkpoint={checkpoint}", f"files={root}", f"out={folder / 'out' / 'x.parquet'}"]
    return start_job(
        "embed", embed, [*options, "num_points=64", "num_workers=0", "device=cpu"], folder
    )


def wait_for_exit(child: int) -> int:
    """Return the exit code of a child, or the negative number of the signal that ended it."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"not done after {TIMEOUT_SECONDS:.0f} s")


def kill_after(child: int, seconds: float, has_started: Callable[[], bool]) -> bool:
    """Kill a child `seconds` after it has started; return whether it was still running."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not has_started() and time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    time.sleep(seconds)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def list_corrupt_checkpoints(folder: Path) -> list[str]:
    """Return an error for each unreadable checkpoint in a folder."""
    errors = []
    for path in folder.rglob("*.ckpt"):
        try:
            read_checkpoint(path)
        except ValueError as error:
            errors.append(str(error))
    return errors


def read_files(folder: Path, exclude: Sequence[str] = (".lock",)) -> dict[str, bytes]:
    """Return the files below a folder by name, without partial files of killed writers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in exclude and path.suffix != ".part"
    }
