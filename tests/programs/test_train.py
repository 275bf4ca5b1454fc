"""Trainings resume exactly, survive faults, and report wrong input in one line."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import multiprocessing

from recon.callbacks.checkpoints import AtomicCheckpointIO, find_intact_checkpoint
from recon.cli.config_dir import conf_dir
from recon.cli.errors import exit_on_interrupt, one_line_errors
from recon.prepare import prepare
from recon.utils.printable import format_count
from runs import EVERY_STEP, TINY, run

STRESS = Path(__file__).parents[2] / "scripts" / "stress"
"""Folder of the module with the faults."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """Train without interruption, with a checkpoint after each step; return folder and losses."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, run(folder, *EVERY_STEP)


def test_runs_with_the_same_seed_have_identical_losses(
    uninterrupted: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    assert run(tmp_path / "same") == uninterrupted[1]
    assert run(tmp_path / "workers", "data.num_workers=2") == uninterrupted[1]
    assert run(tmp_path / "other", "seed=1") != uninterrupted[1]


@pytest.mark.parametrize(
    "step", [1, 5, 7, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 10, 14))]
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_losses_of_the_uninterrupted_one(
    step: int, workers: int, uninterrupted: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    checkpoint = uninterrupted[0] / "checkpoints" / f"{step}.ckpt"
    resumed = run(tmp_path, *EVERY_STEP, f"ckpt_path={checkpoint}", f"data.num_workers={workers}")
    assert resumed == {k: v for k, v in uninterrupted[1].items() if k >= step}


def test_a_run_resumed_at_the_end_of_an_epoch_repeats_the_losses(tmp_path: Path) -> None:
    keep_all = ["callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="{epoch}"']
    losses = run(tmp_path / "uninterrupted", *keep_all)
    for epoch in (0, 1):
        checkpoint = tmp_path / "uninterrupted" / "checkpoints" / f"{epoch}.ckpt"
        resumed = run(tmp_path / f"resumed{epoch}", f"ckpt_path={checkpoint}", "data.num_workers=2")
        assert resumed == {k: v for k, v in losses.items() if k >= 5 * (epoch + 1)}


def test_checkpoints_load_with_weights_only_and_hold_no_teacher(
    uninterrupted: tuple[Path, dict[int, str]],
) -> None:
    checkpoint = torch.load(uninterrupted[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any("teacher" in key for key in checkpoint["state_dict"])
    assert checkpoint["recon"]["num_groups"] == 8


def test_the_last_checkpoint_holds_the_last_step(tmp_path: Path) -> None:
    run(tmp_path, "callbacks=within_epochs", "callbacks.within.every_n_train_steps=4")
    folder = tmp_path / "checkpoints"
    steps = {p.stem: torch.load(p, weights_only=True)["global_step"] for p in folder.iterdir()}
    assert steps == {"last": 15, "previous": 10, "epoch-002": 15, "step-000012": 12}


# After step 3, the last batch of the epoch is still to come.
@pytest.mark.parametrize(
    "step", [3, 9, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 6))]
)
def test_an_interrupted_run_resumes_exactly(
    step: int,
    uninterrupted: tuple[Path, dict[int, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt = [
        "+callbacks.interrupt._target_=conftest.InterruptStep",
        f"+callbacks.interrupt.step={step}",
    ]
    with pytest.raises(SystemExit):
        run(tmp_path / "interrupted", *interrupt)
    last = tmp_path / "interrupted" / "checkpoints" / "last.ckpt"
    message = f"stopped after {format_count(step + 1, 'step')}; resume with ckpt_path={last}"
    assert message in capsys.readouterr().out
    resumed = run(tmp_path / "resumed", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in uninterrupted[1].items() if k > step}
    folders = [uninterrupted[0], tmp_path / "resumed"]
    expected, actual = (torch.load(folder / "checkpoints" / "last.ckpt") for folder in folders)
    for name, value in expected["state_dict"].items():  # with BatchNorm statistics
        assert torch.equal(value, actual["state_dict"][name]), name


def test_an_interrupt_in_the_last_step_exits_without_finishing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt = [
        "+callbacks.interrupt._target_=conftest.InterruptStep",
        "+callbacks.interrupt.step=14",
    ]
    with pytest.raises(SystemExit) as exit_info:
        run(tmp_path, *interrupt)
    assert exit_info.value.code == 1
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"stopped after 15 steps; resume with ckpt_path={last}\n" in capsys.readouterr().out
    assert torch.load(last, weights_only=True)["global_step"] == 15
    assert not (tmp_path / "finished.json").exists()


def test_checkpoints_of_an_earlier_run_are_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_epochs=1")
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    message = f"{last}: belongs to an earlier run: resume it with ckpt_path="
    with pytest.raises(ValueError, match=message):
        run(tmp_path, "seed=1")
    assert last.read_bytes() == content
    run(tmp_path, f"ckpt_path={last}")  # resumes in the same folder, under the same names
    assert torch.load(last, weights_only=True)["global_step"] == 15
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "previous.ckpt", "epoch-002.ckpt"}


def test_unsuitable_checkpoints_raise_value_error(
    uninterrupted: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    last = uninterrupted[0] / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"last.ckpt: .* another network.*config.yaml"):
        run(tmp_path / "wider", f"ckpt_path={last}", "model.dim=48")
    with pytest.raises(ValueError, match=r"unexpected, e.g. model\.projections"):
        run(tmp_path / "other", f"ckpt_path={last}", "student=generative")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "weights.ckpt")
    for name, message in (
        ("text", "not a checkpoint that can be read"),
        ("weights", "no training state"),
    ):
        with pytest.raises(ValueError, match=f"{name}.ckpt: .*{message}"):
            run(tmp_path / name, f"ckpt_path={tmp_path / name}.ckpt")


def run_command(
    *options: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_run_from_any_directory_writes_only_into_its_folder(tmp_path: Path) -> None:
    completed = run_command(*TINY, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    (run_folder,) = (tmp_path / "outputs" / "pretrain_furniture").iterdir()
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "metrics.csv", "checkpoints", ".hydra"} <= names
    assert "ReCon, generative and contrastive students" in completed.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


@pytest.mark.slow
def test_each_job_of_a_multirun_has_its_folder(tmp_path: Path) -> None:
    completed = run_command("-m", *TINY, "mask.ratio=0.3,0.6", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    (sweep,) = (tmp_path / "outputs" / "pretrain_furniture").iterdir()
    for job, ratio in (("0", "0.3"), ("1", "0.6")):
        assert f"ratio: {ratio}" in (sweep / job / "config.yaml").read_text()
        assert (sweep / job / "metrics.csv").is_file()


WRONG_INPUT = [
    (["experiment=pretrain_shapenet", "data.root=nowhere"], "nowhere/ShapeNet-55/test.txt: not"),
    ([*TINY, "ckpt_path=gone.ckpt"], "gone.ckpt: no such checkpoint to resume from"),
    (
        ["experiment=pretrian_furniture"],
        "experiment=pretrian_furniture: no such choice: did you mean experiment=pretrain",
    ),
    ([*TINY, "mask.ration=0.5"], "mask.ration=0.5: no such option: did you mean mask.ratio=0.5"),
]
WRONG_INPUT_OF_MODULES = [
    ([*TINY, "data.root=nowhere"], "nowhere/furniture.npz: not found"),
    ([*TINY, "num_points=4"], "cannot pick 8 centers from 4 points"),
    ([*TINY, "num_points=4000"], "cannot keep 4000 of 2048 points"),
    ([*TINY, "mask.ratio=1.5"], "mask.ratio=1.5: must be a finite number of at least 0"),
    ([*TINY, "projection_dims.image=99"], "have width 1280, but dim is set to 99"),
    ([*TINY, "+loss_weights.txet=2.0"], "loss_weights has ['txet'], but the losses are"),
    ([*TINY, "trainer.devices=99"], "trainer.devices=99: too many processes for the CPU"),
    ([*TINY, "output_dir=/dev/null/x"], "error: /dev/null/x: cannot be created (Not a directory)"),
]
"""Input that is found wrong after the imports of a training, which take seconds."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *WRONG_INPUT,
        *(pytest.param(*case, marks=pytest.mark.slow) for case in WRONG_INPUT_OF_MODULES),
    ],
)
def test_wrong_input_exits_with_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    completed = run_command(*options, cwd=tmp_path)
    assert completed.returncode != 0
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.mark.slow
def test_a_teacher_cache_of_other_data_is_rejected_before_training(
    shapenet_root: Path, tmp_path: Path
) -> None:
    options = ["experiment=pretrain_shapenet", "teacher=furniture", "debug=tiny"]
    completed = run_command(*options, f"data.root={shapenet_root}", cwd=tmp_path)
    assert "made for other data: it lacks 8 of 8 entries" in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named_with_and_without_workers(
    workers: int, shapenet_root: Path, tmp_path: Path
) -> None:
    for path in (shapenet_root / "shapenet_pc").glob("*.npy"):
        path.write_bytes(b"broken")
    options = ["experiment=pretrain_shapenet", "teacher=untrained", "debug=tiny"]
    completed = run_command(
        *options, f"data.root={shapenet_root}", f"data.num_workers={workers}", cwd=tmp_path
    )
    assert ".npy: not a readable array" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_out_of_memory_exits_with_remedies_and_the_run_resumes_exactly(
    uninterrupted: tuple[Path, dict[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = [
        "+callbacks.fault._target_=fault_callbacks.InjectFault",
        "+callbacks.fault.fault=memory",
    ]
    with pytest.raises(SystemExit) as exit_info, one_line_errors():
        run(tmp_path / "interrupted", *fault, "+callbacks.fault.step=8")
    message = str(exit_info.value).split("\n")[0]
    for remedy in ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.precision=bf16",
                   "model.checkpoint_activations=true"):  # fmt: skip
        assert remedy in message
    last = tmp_path / "interrupted" / "checkpoints" / "last.ckpt"
    assert f"stopped after 8 steps; resume with ckpt_path={last}" in capsys.readouterr().out
    resumed = run(tmp_path / "resumed", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in uninterrupted[1].items() if k >= 8}
    folders = [uninterrupted[0], tmp_path / "resumed"]
    expected, actual = (torch.load(folder / "checkpoints" / "last.ckpt") for folder in folders)
    for name, value in expected["state_dict"].items():  # the step had updated BatchNorm statistics
        assert torch.equal(value, actual["state_dict"][name]), name


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    elif kind == "one bit":  # of a weight: torch alone would not notice
        content[len(content) // 2] ^= 1
    elif kind == "emptied":
        content.clear()
    path.write_bytes(content)
    if kind == "missing":
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "one bit", "emptied", "missing"])
def test_a_damaged_last_checkpoint_is_replaced_by_the_newest_intact_one(
    kind: str,
    uninterrupted: tuple[Path, dict[int, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last", "previous", "7"):
        shutil.copy(uninterrupted[0] / "checkpoints" / f"{name}.ckpt", folder)
    os.utime(folder / "previous.ckpt", (0, 0))  # clocks may jump, so steps decide
    damage(folder / "last.ckpt", kind)
    intact = find_intact_checkpoint(folder / "last.ckpt")
    assert intact == folder / "previous.ckpt"
    output = capsys.readouterr().out
    assert f"{folder / 'last.ckpt'}: " in output
    assert f"resuming from {intact} instead, saved at step 10" in output
    damage(intact, "truncated")
    assert find_intact_checkpoint(folder / "last.ckpt") == folder / "7.ckpt"
    damage(folder / "7.ckpt", "one bit")
    with pytest.raises((ValueError, FileNotFoundError), match=r"last\.ckpt: "):
        find_intact_checkpoint(folder / "last.ckpt")


def test_a_damaged_checkpoint_other_than_last_is_not_replaced(
    uninterrupted: tuple[Path, dict[int, str]],
) -> None:
    copy = uninterrupted[0] / "checkpoints" / "other.ckpt"
    copy.write_bytes((uninterrupted[0] / "checkpoints" / "4.ckpt").read_bytes()[:-99])
    with pytest.raises(ValueError, match=r"other\.ckpt: not a checkpoint"):
        find_intact_checkpoint(copy)
    copy.unlink()


def test_a_full_disk_keeps_the_last_checkpoint_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, last = os.fsync, tmp_path / "checkpoints" / "last.ckpt"

    def fail_when_full(number: int) -> None:
        if last.is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", fail_when_full)
    with pytest.raises(ValueError, match=r"ckpt: cannot be written \(No space left on device\)"):
        run(tmp_path)
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert "stopped after 10 steps; resume with ckpt_path=" in capsys.readouterr().out
    assert not [*last.parent.glob("*.part")]


def test_a_locked_folder_rejects_other_programs(tmp_path: Path) -> None:
    holder = (
        "import time; from pathlib import Path; from recon.utils.atomic_write import write_lock\n"
    )
    holder += (
        f"with write_lock(Path({str(tmp_path)!r}), ''): print('in', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    try:
        with pytest.raises(ValueError, match=rf"{tmp_path}: is being written by process \d+ on"):
            run(tmp_path)
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            options = ["data=furniture", f"out={tmp_path}", "num_workers=1", "splits=[test]"]
            cfg = compose("prepare", options)
        with pytest.raises(ValueError, match=rf"{tmp_path}: is being written by .*out=<folder>"):
            prepare(cfg)
    finally:
        first.kill()
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_resource_errors_exit_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error, message in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of mem"),
        (MemoryError(), "out of memory (MemoryError): lower data.batch_size"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you "
                      "tried to allocate 9 bytes."), "not enough memory"),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
         "a data-loading worker (process 12) died (is killed by signal: Killed), often"),
        (RuntimeError("DataLoader worker (pid(s) 3, 4) exited unexpectedly"), "(process 3, 4)"),
        (OSError(errno.ENOSPC, "No space left on device"), "device: free disk space"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as exit_info, one_line_errors():
            raise error
        assert message in str(exit_info.value).split("\n")[0]
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug keeps its traceback")


@pytest.mark.slow
def test_a_dead_worker_is_reported(tmp_path: Path) -> None:
    # In a process of its own: torch raises the error anywhere, also in the type checks of tests.
    kill = [
        *(*TINY, "trainer.limit_train_batches=5", "trainer.max_epochs=3"),
        "+callbacks.kill._target_=fault_callbacks.KillWorker",
        "+callbacks.kill.step=7",
        "data.num_workers=1",
    ]
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(STRESS)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    completed = run_command(*kill, f"hydra.run.dir={tmp_path}", cwd=tmp_path, env=env)
    assert completed.returncode == 1
    assert re.search(r"error: a data-loading worker .process .* died", completed.stderr)
    assert "Traceback" not in completed.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_exit_on_interrupt_prints_its_message_and_restores_the_handler(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    previous = signal.signal(number, default)  # programs in the background ignore Ctrl-C
    try:
        with pytest.raises(SystemExit) as exit_info, exit_on_interrupt("stopped: files are kept"):
            signal.raise_signal(number)
        assert signal.getsignal(number) == default
    finally:
        signal.signal(number, previous)
    assert exit_info.value.code == code
    assert capsys.readouterr().err == "stopped: files are kept\n"


def _send_and_exit(queue: multiprocessing.SimpleQueue) -> None:
    queue.put(torch.zeros(9))
    os._exit(0)


def test_a_worker_that_exits_before_its_batch_is_received_is_reported() -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    child = fork.Process(target=_send_and_exit, args=(queue,))
    child.start()
    child.join()
    with pytest.raises(SystemExit, match="a data-loading worker .* died"), one_line_errors():
        queue.get()


def test_an_error_within_the_optimizer_step_saves_no_checkpoint(
    uninterrupted: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    tear = [
        "+callbacks.tear._target_=fault_callbacks.InjectFault",
        "+callbacks.tear.fault=optimizer",
    ]
    with pytest.raises(RuntimeError, match="in the middle of the optimizer"):
        run(tmp_path / "interrupted", *tear, "+callbacks.tear.step=8")
    last = tmp_path / "interrupted" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5  # the end of the epoch
    resumed = run(tmp_path / "resumed", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in uninterrupted[1].items() if k >= 5}


def test_an_error_between_two_checkpoints_names_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_last = ModelCheckpoint._save_last_checkpoint

    def fail_at_step_10(
        self: ModelCheckpoint, trainer: Trainer, candidates: dict[str, Any]
    ) -> None:
        if trainer.global_step == 10:
            raise RuntimeError("stopped before last.ckpt")
        save_last(self, trainer, candidates)

    monkeypatch.setattr(ModelCheckpoint, "_save_last_checkpoint", fail_at_step_10)
    with pytest.raises(RuntimeError, match="stopped before last.ckpt"):
        run(tmp_path)
    newer = tmp_path / "checkpoints" / "epoch-001.ckpt"
    assert f"stopped after 10 steps; resume with ckpt_path={newer}\n" in capsys.readouterr().out


def test_a_checkpoint_without_disk_space_names_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_when_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint_io, checkpoints = AtomicCheckpointIO(), tmp_path / "checkpoints"
    folders = {"hpc_ckpt_1.ckpt": tmp_path, "epoch-001.ckpt": checkpoints, "last.ckpt": checkpoints}
    monkeypatch.setattr(os, "fsync", fail_when_full)
    for name, folder in folders.items():
        with pytest.raises(ValueError, match=f"{name}: .*start again: nothing was saved"):
            checkpoint_io.save_checkpoint({"global_step": 1}, folder / name)
    monkeypatch.undo()
    checkpoint_io.save_checkpoint({"global_step": 1}, checkpoints / "last.ckpt")
    monkeypatch.setattr(os, "fsync", fail_when_full)
    for name, folder in folders.items():
        with pytest.raises(ValueError, match=f"{name}: .*ckpt_path={checkpoints}/last.ckpt, which"):
            checkpoint_io.save_checkpoint({"global_step": 2}, folder / name)
    assert find_intact_checkpoint(checkpoints / "last.ckpt") == checkpoints / "last.ckpt"


def test_weights_without_a_step_are_saved_unchanged(tmp_path: Path) -> None:
    checkpoint_io = AtomicCheckpointIO()  # spawned processes return their weights so
    checkpoint_io.save_checkpoint({"weight": torch.ones(2)}, tmp_path / "weights.ckpt")
    assert not checkpoint_io.saved_steps
    assert torch.load(tmp_path / "weights.ckpt")["weight"].sum() == 2
