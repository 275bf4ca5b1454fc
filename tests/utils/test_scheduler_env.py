"""Job names, and final metrics read by restarted jobs."""

import pickle
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train_seeds
from recon.utils.scheduler_env import job_name, read_final_metrics, write_final_metrics
from runs import TINY


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "default"),
        ({"SLURM_JOB_ID": "77"}, "default"),  # without srun, a restart looks like a new command
        ({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}, "77"),
        ({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3"}, "77.3"),
        ({"TORCHELASTIC_RUN_ID": "first"}, "first"),
    ],
)
def test_job_name_comes_from_the_scheduler(
    env: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    assert job_name("default") == name
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for trainer in ("default", "multi_node"):
            folder = Path(compose("train", [f"trainer={trainer}", "name=x"]).output_dir)
            assert folder.parent == Path("outputs/x")
            assert name in ("default", folder.name)


def test_multirun_jobs_keep_the_folder_of_the_multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train")
    folder = cfg.output_dir
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # set in the job that the launcher starts
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert pickle.loads(pickle.dumps(cfg)).output_dir == folder


def test_torchrun_without_run_id_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SystemExit, match="add --rdzv-id"):
        job_name("default")


def test_final_metrics_are_read_by_restarted_jobs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    write_final_metrics(tmp_path, {"loss": 0.5})
    assert read_final_metrics(tmp_path) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert read_final_metrics(tmp_path) == {"loss": 0.5}
    assert read_final_metrics(tmp_path / "other") is None


def test_restarted_jobs_skip_finished_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_seeds() -> float | None:
        overrides = [*TINY, "seeds=[0,1]", "objective=train/total", f"output_dir={tmp_path}"]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return train_seeds(compose("train", overrides))

    monkeypatch.setenv("SLURM_JOB_ID", "77")
    mean = run_seeds()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_seeds() == mean
    write_final_metrics(tmp_path / "seed_0", {"train/total": 2.0})
    shutil.rmtree(tmp_path / "seed_1")
    new_mean = run_seeds()
    assert new_mean is not None
    retrained = read_final_metrics(tmp_path / "seed_1")
    assert retrained is not None
    assert retrained["train/total"] == pytest.approx(2 * new_mean - 2.0)
