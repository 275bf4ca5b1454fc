"""A SLURM job that is warned saves between steps, asks for its requeue, and goes on exactly."""

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
    told = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report",
            "trainer.limit_train_batches=4", "trainer.max_epochs=2", *options]  # fmt: skip
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*told, f"output_dir={folder}"]))
    return steps(folder / "metrics.csv")


def steps(path: Path) -> dict[int, str]:
    with path.open() as file:
        return {
            int(row["step"]): row["train/total"]
            for row in csv.DictReader(file)
            if row["train/total"]
        }


def answer(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int = 0) -> None:
    """Let a process be the only one of a SLURM job, with a scontrol that answers."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    scontrol = folder / "bin" / "scontrol"
    scontrol.parent.mkdir()
    told = "print('scontrol', *sys.argv[1:], flush=True)"
    ended = f"sys.exit('requeue is disabled' if {code} else 0)"
    scontrol.write_text(f"#!{sys.executable}\nimport sys\n{told}\n{ended}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")


def warned(step: int, number: signal.Signals = signal.SIGUSR1) -> list[str]:
    return ["+callbacks.warn._target_=conftest.InterruptStep", f"+callbacks.warn.step={step}",
            f"+callbacks.warn.number={number.value}"]  # fmt: skip


@pytest.mark.slow
def test_a_requeued_job_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run(tmp_path / "whole")
    answer(monkeypatch, tmp_path)
    for step in (2, 4):  # of the first, the epoch's last batch is still to come
        with pytest.raises(SystemExit) as ended:
            run(tmp_path / "job", *warned(step))
        assert ended.value.code == 1
        told = capfd.readouterr().out
        assert "scontrol requeue 4242" in told
        assert f"saved after {step + 1} steps" in told  # not within the step
        (saved,) = (tmp_path / "job").glob("hpc_ckpt_*.ckpt")  # the one before is gone
        assert torch.load(saved, weights_only=True)["global_step"] == step + 1
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert f"go on with ckpt_path={saved}" in told
    resumed = run(tmp_path / "job")
    assert resumed == {step: loss for step, loss in whole.items() if step >= 5}
    assert not saved.exists()  # else a test of the finished network would read it
    for number, these in ((1, range(3)), (2, range(3, 5))):
        earlier = steps(tmp_path / "job" / f"metrics_{number}.csv")
        assert earlier == {step: whole[step] for step in these}
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "job")]
    for name, value in ends[0]["state_dict"].items():  # batch statistics among them
        assert torch.equal(value, ends[1]["state_dict"][name]), name


@pytest.mark.slow
def test_a_job_that_cannot_be_queued_again_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, tmp_path, code=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "job", *warned(1))
    told = capfd.readouterr().out
    assert "job 4242 could not be queued again: requeue is disabled" in told
    assert f"stopped after 2 steps; go on with ckpt_path={tmp_path}/job/hpc_ckpt_1.ckpt\n" in told


@pytest.mark.slow
def test_what_was_there_before_answers_the_warning_of_submitit(tmp_path: Path) -> None:
    answered: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: answered.append(number))
    try:
        with pytest.raises(SystemExit):
            run(tmp_path / "job", *warned(1, signal.SIGUSR2))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert answered == [signal.SIGUSR2]
    assert (tmp_path / "job" / "hpc_ckpt_1.ckpt").is_file()


def test_a_job_started_again_goes_on_from_the_checkpoint_of_most_steps(
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
