"""A job's name, and what it finished before the cluster started it again."""

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
    ("told", "name"),
    [
        ({}, "noon"),
        ({"SLURM_JOB_ID": "77"}, "noon"),  # without srun: no restart is told from another command
        ({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}, "77"),
        ({"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3"}, "77.3"),
        ({"TORCHELASTIC_RUN_ID": "first"}, "first"),
    ],
)
def test_a_run_is_named_by_its_job(
    told: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert job_name("noon") == name
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for trainer in ("default", "multi_node"):
            folder = Path(compose("train", [f"trainer={trainer}", "name=x"]).output_dir)
            assert folder.parent == Path("outputs/x")
            assert name in ("noon", folder.name)


def test_jobs_of_a_multirun_stay_in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train")
    folder = cfg.output_dir
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # as the launcher hands it over to a job
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert pickle.loads(pickle.dumps(cfg)).output_dir == folder


def test_processes_without_a_common_name_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SystemExit, match="add --rdzv-id"):
        job_name("noon")


def test_only_a_job_that_is_started_again_looks_for_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    write_final_metrics(tmp_path, {"loss": 0.5})
    assert read_final_metrics(tmp_path) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert read_final_metrics(tmp_path) == {"loss": 0.5}
    assert read_final_metrics(tmp_path / "other") is None


def test_seeds_that_are_finished_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeds() -> float | None:
        told = [*TINY, "seeds=[0,1]", "objective=train/total", f"output_dir={tmp_path}"]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return train_seeds(compose("train", told))

    monkeypatch.setenv("SLURM_JOB_ID", "77")
    whole = seeds()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert seeds() == whole
    write_final_metrics(tmp_path / "seed_0", {"train/total": 2.0})
    shutil.rmtree(tmp_path / "seed_1")
    again = seeds()
    assert again is not None
    second = read_final_metrics(tmp_path / "seed_1")
    assert second is not None
    assert second["train/total"] == pytest.approx(2 * again - 2.0)
