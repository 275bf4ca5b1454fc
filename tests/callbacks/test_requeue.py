"""A warned SLURM job saves between steps, requeues itself, and resumes with the same losses."""

import csv
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from recon.callbacks.requeue import find_requeue_checkpoint
from recon.cli.config_dir import conf_dir
from recon.train import train

JOB = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "4242",
       "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1",
       "SLURM_JOB_NAME": "recon", "SLURM_NODELIST": "localhost"}  # fmt: skip


def run(folder: Path, *options: str) -> dict[int, str]:
    tiny = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report",
            "trainer.limit_train_batches=4", "trainer.max_epochs=2", *options]  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*tiny, f"output_dir={folder}"]))
    return read_losses(folder / "metrics.csv")


def read_losses(path: Path) -> dict[int, str]:
    with path.open() as file:
        return {
            int(row["step"]): row["train/total"]
            for row in csv.DictReader(file)
            if row["train/total"]
        }


def fake_slurm(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int = 0) -> None:
    """Set the environment of a SLURM job with one process, and install a fake scontrol."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    scontrol = folder / "bin" / "scontrol"
    scontrol.parent.mkdir()
    echo = "print('scontrol', *sys.argv[1:], flush=True)"
    leave = f"sys.exit('requeue is disabled' if {code} else 0)"
    scontrol.write_text(f"#!{sys.executable}\nimport sys\n{echo}\n{leave}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")


def warning_options(step: int, number: signal.Signals = signal.SIGUSR1) -> list[str]:
    return ["+callbacks.warn._target_=conftest.InterruptStep", f"+callbacks.warn.step={step}",
            f"+callbacks.warn.number={number.value}"]  # fmt: skip


@pytest.mark.slow
def test_a_requeued_job_repeats_the_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    losses = run(tmp_path / "uninterrupted")
    fake_slurm(monkeypatch, tmp_path)
    for step in (2, 4):  # after step 2, the last batch of the epoch is still to come
        with pytest.raises(SystemExit) as exit_info:
            run(tmp_path / "job", *warning_options(step))
        assert exit_info.value.code == 1
        output = capfd.readouterr().out
        assert "scontrol requeue 4242" in output
        assert f"saved after {step + 1} steps" in output  # not within the step
        (saved,) = (tmp_path / "job").glob("hpc_ckpt_*.ckpt")  # the older one is deleted
        assert torch.load(saved, weights_only=True)["global_step"] == step + 1
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert f"resume with ckpt_path={saved}" in output
    resumed = run(tmp_path / "job")
    assert resumed == {step: loss for step, loss in losses.items() if step >= 5}
    assert not saved.exists()  # else Lightning would test it instead of the finished network
    for number, earlier_steps in ((1, range(3)), (2, range(3, 5))):
        earlier = read_losses(tmp_path / "job" / f"metrics_{number}.csv")
        assert earlier == {step: losses[step] for step in earlier_steps}
    folders = [tmp_path / "uninterrupted", tmp_path / "job"]
    expected, actual = (torch.load(folder / "checkpoints" / "last.ckpt") for folder in folders)
    for name, value in expected["state_dict"].items():  # with BatchNorm statistics
        assert torch.equal(value, actual["state_dict"][name]), name


@pytest.mark.slow
def test_a_failed_requeue_is_reported_with_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_slurm(monkeypatch, tmp_path, code=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "job", *warning_options(1))
    output = capfd.readouterr().out
    assert "job 4242 could not be requeued: requeue is disabled" in output
    assert (
        f"stopped after 2 steps; resume with ckpt_path={tmp_path}/job/hpc_ckpt_1.ckpt\n" in output
    )


@pytest.mark.slow
def test_the_previous_handler_receives_the_signal_of_submitit(tmp_path: Path) -> None:
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        with pytest.raises(SystemExit):
            run(tmp_path / "job", *warning_options(1, signal.SIGUSR2))
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert received == [signal.SIGUSR2]
    assert (tmp_path / "job" / "hpc_ckpt_1.ckpt").is_file()


def test_a_restarted_job_resumes_from_the_intact_checkpoint_of_the_highest_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert find_requeue_checkpoint(tmp_path) is None
    for name, step in (("hpc_ckpt_1", 7), ("checkpoints/epoch-000", 6), ("checkpoints/last", 9)):
        torch.save({"global_step": step}, tmp_path / f"{name}.ckpt")
    assert find_requeue_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert find_requeue_checkpoint(tmp_path) == tmp_path / "hpc_ckpt_1.ckpt"
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert find_requeue_checkpoint(tmp_path) is None
