"""The command line, as its user meets it."""

import errno
import os
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
from runs import EVERY_STEP, TINY, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """An uninterrupted run with a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, *EVERY_STEP)


def test_two_runs_with_one_seed_have_identical_losses(
    whole: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    assert run(tmp_path / "again") == whole[1]
    assert run(tmp_path / "workers", "data.num_workers=2") == whole[1]
    assert run(tmp_path / "other", "seed=1") != whole[1]


@pytest.mark.parametrize("step", [1, 4, 5, 7, 10, 14])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_has_the_losses_of_the_uninterrupted_one(
    step: int, workers: int, whole: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    checkpoint = whole[0] / "checkpoints" / f"{step}.ckpt"
    resumed = run(tmp_path, *EVERY_STEP, f"ckpt_path={checkpoint}", f"data.num_workers={workers}")
    assert resumed == {k: v for k, v in whole[1].items() if k >= step}


def test_resuming_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    keep = ["callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="{epoch}"']
    losses = run(tmp_path / "whole", *keep)
    for epoch in (0, 1):
        checkpoint = tmp_path / "whole" / "checkpoints" / f"{epoch}.ckpt"
        resumed = run(tmp_path / f"resumed{epoch}", f"ckpt_path={checkpoint}", "data.num_workers=2")
        assert resumed == {k: v for k, v in losses.items() if k >= 5 * (epoch + 1)}


def test_checkpoints_are_read_without_executing_anything_and_hold_no_teacher(
    whole: tuple[Path, dict[int, str]],
) -> None:
    checkpoint = torch.load(whole[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any("teacher" in key for key in checkpoint["state_dict"])
    assert checkpoint["recon"]["num_groups"] == 8


def test_the_last_checkpoint_is_of_the_last_step(tmp_path: Path) -> None:
    run(tmp_path, "callbacks=within_epochs", "callbacks.within.every_n_train_steps=4")
    folder = tmp_path / "checkpoints"
    steps = {p.stem: torch.load(p, weights_only=True)["global_step"] for p in folder.iterdir()}
    assert steps == {"last": 15, "previous": 10, "epoch-002": 15, "step-000012": 12}


@pytest.mark.parametrize("step", [0, 3, 6, 9])  # after 3, an epoch's last batch is to come
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    step: int,
    whole: tuple[Path, dict[int, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = ["+callbacks.cut._target_=conftest.InterruptStep", f"+callbacks.cut.step={step}"]
    with pytest.raises(SystemExit):
        run(tmp_path / "cut", *cut)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert f"stopped after {step + 1} steps; go on with ckpt_path={last}" in capsys.readouterr().out
    resumed = run(tmp_path / "on", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in whole[1].items() if k > step}
    ends = [torch.load(p / "checkpoints" / "last.ckpt") for p in (whole[0], tmp_path / "on")]
    for name, value in ends[0]["state_dict"].items():  # batch statistics among them
        assert torch.equal(value, ends[1]["state_dict"][name]), name


def test_an_interruption_of_the_last_step_ends_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["+callbacks.cut._target_=conftest.InterruptStep", "+callbacks.cut.step=14"]
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *cut)
    assert ended.value.code == 1
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"stopped after 15 steps; go on with ckpt_path={last}\n" in capsys.readouterr().out
    assert torch.load(last, weights_only=True)["global_step"] == 15
    assert not (tmp_path / "finished.json").exists()


def test_checkpoints_of_an_earlier_run_are_not_written_over(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_epochs=1")
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with pytest.raises(ValueError, match=f"{last}: is of an earlier run: go on with ckpt_path="):
        run(tmp_path, "seed=1")
    assert last.read_bytes() == before
    run(tmp_path, f"ckpt_path={last}")  # goes on in the same folder, under the same names
    assert torch.load(last, weights_only=True)["global_step"] == 15
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "previous.ckpt", "epoch-002.ckpt"}


def test_what_cannot_be_resumed_is_said(whole: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    last = whole[0] / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"last.ckpt: .* another network.*config.yaml"):
        run(tmp_path / "wider", f"ckpt_path={last}", "model.dim=48")
    with pytest.raises(ValueError, match=r"left over, e.g. model\.projections"):
        run(tmp_path / "other", f"ckpt_path={last}", "student=generative")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "weights.ckpt")
    for name, message in (("text", "not a checkpoint that can be read"), ("weights", "no state")):
        with pytest.raises(ValueError, match=f"{name}.ckpt: .*{message}"):
            run(tmp_path / name, f"ckpt_path={tmp_path / name}.ckpt")


def command(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_runs_from_any_directory_and_leaves_everything_in_the_runs_folder(tmp_path: Path) -> None:
    done = command(*TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_folder,) = (tmp_path / "outputs" / "pretrain_furniture").iterdir()
    found = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "metrics.csv", "checkpoints", ".hydra"} <= found
    assert "_target_: recon.tasks.pretrain.ReConStudent" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_multiruns_have_a_folder_each(tmp_path: Path) -> None:
    done = command("-m", *TINY, "mask.ratio=0.3,0.6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "pretrain_furniture").iterdir()
    for job, ratio in (("0", "0.3"), ("1", "0.6")):
        assert f"ratio: {ratio}" in (sweep / job / "config.yaml").read_text()
        assert (sweep / job / "metrics.csv").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["experiment=pretrain_shapenet", "data.root=nowhere"], "nowhere/shapenet55.json: not"),
        ([*TINY, "ckpt_path=gone.ckpt"], "gone.ckpt: no such checkpoint to resume from"),
        ([*TINY, "data.root=nowhere"], "nowhere/furniture.npz: not found"),
        ([*TINY, "num_points=4"], "cannot pick 8 centres from 4 points"),
        ([*TINY, "num_points=4000"], "cannot keep 4000 of 2048 points"),
        ([*TINY, "mask.ratio=1.5"], "mask.ratio=1.5: must be a finite number of at least 0"),
        ([*TINY, "projection_dims.image=99"], "caches 1280 features of"),
        ([*TINY, "+loss_weights.txet=2.0"], "weights for ['txet'], but the losses are"),
        ([*TINY, "trainer.devices=99"], "trainer.devices=99: as many processes on the CPU"),
        ([*TINY, "output_dir=/dev/null/x"], "error: /dev/null/x: cannot be made (Not a directory)"),
        (["experiment=pretrian_furniture"], "Could not find 'experiment/pretrian_furniture'"),
        ([*TINY, "mask.ration=0.5"], "Could not override 'mask.ration'"),
    ],
)
def test_wrong_input_ends_in_one_clear_line(
    options: list[str], message: str, tmp_path: Path
) -> None:
    done = command(*options, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_made_for_other_data_is_refused_before_training(
    shapenet_root: Path, tmp_path: Path
) -> None:
    options = ["experiment=pretrain_shapenet", "teacher=furniture", "debug=tiny"]
    done = command(*options, f"data.root={shapenet_root}", cwd=tmp_path)
    assert "made for other data: it lacks 8 of 8 entries" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named_from_any_worker(
    workers: int, shapenet_root: Path, tmp_path: Path
) -> None:
    for path in (shapenet_root / "shapenet_pc").glob("*.npy"):
        path.write_bytes(b"broken")
    options = ["experiment=pretrain_shapenet", "teacher=untrained", "debug=tiny"]
    done = command(
        *options, f"data.root={shapenet_root}", f"data.num_workers={workers}", cwd=tmp_path
    )
    assert ".npy: not a readable array" in done.stderr
    assert "Traceback" not in done.stderr


def test_want_of_memory_is_told_with_what_helps_and_nothing_is_lost(
    whole: tuple[Path, dict[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = [
        "+callbacks.fault._target_=fault_callbacks.InjectFault",
        "+callbacks.fault.what=memory",
    ]
    with pytest.raises(SystemExit) as ended, one_line_errors():
        run(tmp_path / "cut", *fault, "+callbacks.fault.step=8")
    message = str(ended.value).split("\n")[0]
    for cure in ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.precision=bf16",
                 "model.checkpoint_activations=true"):  # fmt: skip
        assert cure in message
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert f"stopped after 8 steps; go on with ckpt_path={last}" in capsys.readouterr().out
    resumed = run(tmp_path / "on", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in whole[1].items() if k >= 8}
    ends = [torch.load(p / "checkpoints" / "last.ckpt") for p in (whole[0], tmp_path / "on")]
    for name, value in ends[0]["state_dict"].items():  # the step had touched batch statistics
        assert torch.equal(value, ends[1]["state_dict"][name]), name


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "one bit":  # of a weight: torch alone would not notice
        content[len(content) // 2] ^= 1
    elif how == "emptied":
        content.clear()
    path.write_bytes(content)
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "one bit", "emptied", "gone"])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken_and_said(
    how: str,
    whole: tuple[Path, dict[int, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last", "previous", "7"):
        shutil.copy(whole[0] / "checkpoints" / f"{name}.ckpt", folder)
    os.utime(folder / "previous.ckpt", (0, 0))  # clocks may jump: steps decide
    damage(folder / "last.ckpt", how)
    found = find_intact_checkpoint(folder / "last.ckpt")
    assert found == folder / "previous.ckpt"
    said = capsys.readouterr().out
    assert f"{folder / 'last.ckpt'}: " in said
    assert f"going on from {found} instead, of step 10" in said
    damage(found, "cut")
    assert find_intact_checkpoint(folder / "last.ckpt") == folder / "7.ckpt"
    damage(folder / "7.ckpt", "one bit")
    with pytest.raises((ValueError, FileNotFoundError), match=r"last\.ckpt: "):
        find_intact_checkpoint(folder / "last.ckpt")


def test_one_asked_for_by_name_is_not_replaced(whole: tuple[Path, dict[int, str]]) -> None:
    copy = whole[0] / "checkpoints" / "asked.ckpt"
    copy.write_bytes((whole[0] / "checkpoints" / "4.ckpt").read_bytes()[:-99])
    with pytest.raises(ValueError, match=r"asked\.ckpt: not a checkpoint"):
        find_intact_checkpoint(copy)
    copy.unlink()


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, last = os.fsync, tmp_path / "checkpoints" / "last.ckpt"

    def full(number: int) -> None:
        if last.is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"ckpt: cannot be written \(No space left on device\)"):
        run(tmp_path)
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert "stopped after 10 steps; go on with ckpt_path=" in capsys.readouterr().out
    assert not [*last.parent.glob("*.part")]


def test_no_second_run_writes_into_a_folder(tmp_path: Path) -> None:
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


def test_errors_of_the_machine_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error, message in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of mem"),
        (MemoryError(), "out of memory (MemoryError): lower data.batch_size"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you "
                      "tried to allocate 9 bytes."), "not enough memory"),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
         "a data-loading worker (process 12) died (is killed by signal: Killed), often"),
        (RuntimeError("DataLoader worker (pid(s) 3, 4) exited unexpectedly"), "(process 3, 4)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: make room"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended, one_line_errors():
            raise error
        assert message in str(ended.value).split("\n")[0]
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug of ours keeps its traceback")


def test_a_worker_that_dies_is_named(tmp_path: Path) -> None:
    kill = [
        "+callbacks.kill._target_=fault_callbacks.KillWorker",
        "+callbacks.kill.step=7",
        "data.num_workers=1",
    ]
    said = "a data-loading worker .process .* died"
    with pytest.raises(SystemExit, match=said), one_line_errors():
        run(tmp_path, *kill)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_program_that_is_asked_to_stop_says_what_is_kept(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # of a program in the background Ctrl-C is ignored
    try:
        with pytest.raises(SystemExit) as ended, exit_on_interrupt("stopped: all is kept"):
            signal.raise_signal(number)
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    assert ended.value.code == code
    assert capsys.readouterr().err == "stopped: all is kept\n"


def _send_and_die(queue: multiprocessing.SimpleQueue) -> None:
    queue.put(torch.zeros(9))
    os._exit(0)


def test_a_worker_that_dies_before_its_batch_is_taken_is_named() -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    child = fork.Process(target=_send_and_die, args=(queue,))
    child.start()
    child.join()
    with pytest.raises(SystemExit, match="a data-loading worker .* died"), one_line_errors():
        queue.get()


def test_a_stop_within_the_optimizer_saves_no_torn_step(
    whole: tuple[Path, dict[int, str]], tmp_path: Path
) -> None:
    tear = [
        "+callbacks.tear._target_=fault_callbacks.InjectFault",
        "+callbacks.tear.what=optimizer",
    ]
    with pytest.raises(RuntimeError, match="in the middle of the optimizer"):
        run(tmp_path / "cut", *tear, "+callbacks.tear.step=8")
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5  # the end of the epoch
    resumed = run(tmp_path / "on", f"ckpt_path={last}")
    assert resumed == {k: v for k, v in whole[1].items() if k >= 5}


def test_a_stop_between_two_checkpoints_names_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = ModelCheckpoint._save_last_checkpoint

    def stop(self: ModelCheckpoint, trainer: Trainer, candidates: dict[str, Any]) -> None:
        if trainer.global_step == 10:
            raise RuntimeError("stopped before last.ckpt")
        save(self, trainer, candidates)

    monkeypatch.setattr(ModelCheckpoint, "_save_last_checkpoint", stop)
    with pytest.raises(RuntimeError, match="stopped before last.ckpt"):
        run(tmp_path)
    newer = tmp_path / "checkpoints" / "epoch-001.ckpt"
    assert f"stopped after 10 steps; go on with ckpt_path={newer}\n" in capsys.readouterr().out


def test_a_checkpoint_that_has_no_room_names_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files, checkpoints = AtomicCheckpointIO(), tmp_path / "checkpoints"
    saved = {"hpc_ckpt_1.ckpt": tmp_path, "epoch-001.ckpt": checkpoints, "last.ckpt": checkpoints}
    monkeypatch.setattr(os, "fsync", full)
    for name, folder in saved.items():
        with pytest.raises(ValueError, match=f"{name}: .*start again: nothing was saved"):
            files.save_checkpoint({"global_step": 1}, folder / name)
    monkeypatch.undo()
    files.save_checkpoint({"global_step": 1}, checkpoints / "last.ckpt")
    monkeypatch.setattr(os, "fsync", full)
    for name, folder in saved.items():
        with pytest.raises(ValueError, match=f"{name}: .*ckpt_path={checkpoints}/last.ckpt, which"):
            files.save_checkpoint({"global_step": 2}, folder / name)
    assert find_intact_checkpoint(checkpoints / "last.ckpt") == checkpoints / "last.ckpt"


def test_weights_without_a_step_are_saved_as_they_are(tmp_path: Path) -> None:
    files = AtomicCheckpointIO()  # spawned processes hand them back so
    files.save_checkpoint({"weight": torch.ones(2)}, tmp_path / "weights.ckpt")
    assert not files.saved_steps
    assert torch.load(tmp_path / "weights.ckpt")["weight"].sum() == 2
