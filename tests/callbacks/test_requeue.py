"""A SLURM job that is warned saves between steps, asks for its requeue, and goes on exactly."""

import csv
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from recon.entry import conf_dir
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


@pytest.mark.slow
def test_a_requeued_job_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run(tmp_path / "whole")
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!{sys.executable}\nimport sys\nprint('scontrol', *sys.argv[1:])\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    warned = ["+callbacks.warn._target_=conftest.InterruptStep", "+callbacks.warn.step=3",
              f"+callbacks.warn.number={signal.SIGUSR1.value}"]  # fmt: skip
    ended = ["+callbacks.end._target_=conftest.InterruptStep", "+callbacks.end.step=5"]
    with pytest.raises(SystemExit):
        run(tmp_path / "job", *warned, *ended)
    told = capfd.readouterr().out
    assert "scontrol requeue 4242" in told
    assert "saved after 4 steps and queued again" in told  # not within the fourth
    (saved,) = (tmp_path / "job").glob("hpc_ckpt_*.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 4
    resumed = run(tmp_path / "job")
    assert resumed == {step: loss for step, loss in whole.items() if step >= 4}
    assert not saved.exists()  # else a test of the finished network would read it
    earlier = steps(tmp_path / "job" / "metrics_1.csv")
    assert earlier == {step: loss for step, loss in whole.items() if step < 6}
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "job")]
    for name, value in ends[0]["state_dict"].items():  # batch statistics among them
        assert torch.equal(value, ends[1]["state_dict"][name]), name
