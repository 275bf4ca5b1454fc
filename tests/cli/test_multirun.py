import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from recon.cli.config_dir import conf_dir
from recon.cli.multirun import (
    count_stored_trials,
    main,
    read_failures,
    report_multirun,
    run_job,
)
from recon.cli.multirun_results import collect_results, group_runs
from recon.reports.comparison import shorten_options
from recon.train import fit, select_objective, train_seeds
from recon.utils.scheduler_env import write_final_metrics
from runs import TINY


def write_run(folder: Path, overrides: list[str], accuracy: float) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    row = {"overall_accuracy": {"mean": accuracy, "low": 0, "high": 1}}
    results = {"selection": "val", "results": {"one view": row}}
    (folder / "results.json").write_text(json.dumps(results))


def test_repeats_are_merged_and_options_kept_apart(tmp_path: Path) -> None:
    for number, (way, fold, accuracy) in enumerate([(5, 0, 0.5), (5, 1, 0.7), (10, 0, 0.4)]):
        overrides = [f"data.way={way}", f"data.fold={fold}", "seed=0"]
        write_run(tmp_path / str(number), overrides, accuracy)
    (tmp_path / "3").mkdir()  # a job that failed
    name = "accuracy, one view, selection=val"
    assert collect_results(group_runs(tmp_path)) == {
        "data.way=5": {name: [50, 70]},
        "data.way=10": {name: [40]},
    }


def test_rooms_of_different_areas_have_a_joint_miou(tmp_path: Path) -> None:
    matrices = {1: [[3, 1], [0, 4]], 2: [[1, 3], [2, 2]]}
    for area, counts in matrices.items():
        write_run(tmp_path / str(area), [f"data.test_area={area}"], 0.5)
        row = {"miou": 0.5, "overall_accuracy": {"mean": 0.5}, "confusion": counts}
        results = {
            "selection": "val",
            "rooms": 1,
            "ids": {f"Area_{area}/a": 0.5},
            "results": {"w": row},
        }
        (tmp_path / str(area) / "results.json").write_text(json.dumps(results))
    (rows,) = collect_results(group_runs(tmp_path)).values()
    joint = rows["mIoU, w, selection=val, rooms of all runs"]
    assert joint == [pytest.approx(100 * (4 / 10 + 6 / 12) / 2)]
    assert rows["mIoU, w, selection=val"] == [50, 50]


@pytest.mark.slow
def test_seeds_run_in_their_own_folders_and_share_a_row(tmp_path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        options = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "seeds=[3,4]"]
        cfg = compose("train", [*options, f"output_dir={tmp_path}"])
    train_seeds(cfg)
    (row,) = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert (row["options"], row["metric"]) == ("", "accuracy, one view, selection=val")
    assert row["seeds"] == [3, 4]
    for seed, value in zip((3, 4), row["values"], strict=True):
        results = json.loads((tmp_path / f"seed_{seed}" / "results.json").read_text())
        assert value == pytest.approx(results["metrics"]["overall_accuracy"]["value"])
        assert f"seed: {seed}" in (tmp_path / f"seed_{seed}" / "config.yaml").read_text()
    cfg.seeds = [1, 1]
    with pytest.raises(
        ValueError, match=r"seeds=\[1, 1\]: must be a list of distinct whole numbers"
    ):
        train_seeds(cfg)


def test_seeds_inside_a_multirun_are_found(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["data.way=5", "seeds=[0,1]"], 0.0)
    content = (tmp_path / "0" / "results.json").read_text()
    (tmp_path / "0" / "results.json").unlink()
    for seed, accuracy in enumerate((0.5, 0.7)):
        (tmp_path / "0" / f"seed_{seed}").mkdir()
        results = content.replace('"mean": 0.0', f'"mean": {accuracy}')
        (tmp_path / "0" / f"seed_{seed}" / "results.json").write_text(results)
    assert collect_results(group_runs(tmp_path)) == {
        "data.way=5": {"accuracy, one view, selection=val": [50, 70]}
    }


@pytest.mark.slow
def test_a_multirun_ends_in_a_table(tmp_path: Path) -> None:
    options = ["experiment=fewshot_furniture", "debug=tiny", "eval.votes=0", "data.fold=0,1"]
    completed = subprocess.run(
        [sys.executable, "-m", "recon.train", "-m", *options],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "accuracy, one view" in completed.stdout
    (table,) = tmp_path.rglob("sweep.json")
    (row,) = json.loads(table.read_text())["rows"]
    assert (len(row["values"]), row["seeds"]) == (2, [0, 0])
    assert len([*table.parent.glob("*/results.json")]) == 2


@pytest.mark.slow
def test_a_killed_submitit_job_fails_and_the_others_finish(tmp_path: Path) -> None:
    options = ["experiment=fewshot_furniture", "debug=tiny", "eval.votes=0", "output_dir=sweep",
               "hydra/launcher=submitit_local", "+callbacks.kill._target_=conftest.InterruptStep",
               "+callbacks.kill.number=9", "+callbacks.kill.step=0,99"]  # fmt: skip
    path = f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    completed = subprocess.run(
        [sys.executable, "-m", "recon.train", "-m", *options],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert completed.returncode == 1, completed.stderr
    assert "job 0 failed: ended without a result, probably killed" in completed.stdout
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert {row["options"].lstrip("+") for row in rows} == {"callbacks.kill.step=99"}


def test_shared_options_are_omitted_and_the_plot_is_written(tmp_path: Path) -> None:
    for number, (ratio, accuracy) in enumerate([("0.6", 0.7), ("0.3", 0.5)]):
        overrides = ["experiment=x", f"mask.ratio={ratio}", "seed=0"]
        write_run(tmp_path / str(number), overrides, accuracy)
    assert [*group_runs(tmp_path)] == ["mask.ratio=0.6", "mask.ratio=0.3"]
    assert report_multirun(tmp_path) == 0
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (910, 338)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_objectives_and_losses_of_runs_without_accuracies_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = {"val/accuracy": 0.5, "train/total": 2.25, "train/other": float("nan")}
    for number, objective in enumerate(("val/accuracy", "train/other", None)):
        folder = tmp_path / str(number)
        write_run(folder, [f"mask.ratio=0.{number}"], 0.25)
        write_final_metrics(folder, logged)
        OmegaConf.save({"objective": objective}, folder / "config.yaml")
    (tmp_path / "2" / "results.json").unlink()
    report_multirun(tmp_path)
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    accuracy = "accuracy, one view, selection=val"
    assert [(row["options"], row["metric"], row["value"], row["values"]) for row in rows] == [
        ("mask.ratio=0.0", accuracy, 0.25, [0.25]),
        ("mask.ratio=0.0", "val/accuracy, as logged", 0.5, [0.5]),
        ("mask.ratio=0.1", accuracy, 0.25, [0.25]),
        ("mask.ratio=0.2", "train/total, as logged", 2.25, [2.25]),
    ]
    output = capsys.readouterr().out
    assert "2.2500" in output
    assert "without results" not in output


def test_jobs_that_differ_by_seed_share_a_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), ["experiment=x", f"seed={seed}"], 0.5)
    assert collect_results(group_runs(tmp_path)) == {
        "": {"accuracy, one view, selection=val": [50, 50]}
    }


def test_a_continued_search_is_seeded_by_its_number_of_trials(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        options = ["hparams_search=pretrain", "experiment=pretrain_furniture"]
        options += [f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=x"]
        for trials in (0, 2):
            cfg = compose("train", options, return_hydra_config=True)
            assert cfg.hydra.sweeper.sampler.seed == trials
            study = optuna.create_study(storage=storage, study_name="x", load_if_exists=True)
            study.optimize(lambda trial: trial.number, n_trials=2)
    assert count_stored_trials(None, "x") == 0


def test_an_interrupt_prints_the_command_that_shows_finished_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted_job() -> float:
        raise KeyboardInterrupt

    for kind in ("BasicLauncher", "SlurmLauncher"):
        hydra = SimpleNamespace(launcher=SimpleNamespace(_target_=kind))
        monkeypatch.setattr(HydraConfig, "get", lambda hydra=hydra: hydra)
        with pytest.raises(KeyboardInterrupt):
            run_job(interrupted_job, tmp_path / "1")
        command = f"python -m recon.cli.multirun {tmp_path}\n"
        assert (command in capsys.readouterr().out) == (kind == "BasicLauncher")


def test_a_failed_job_is_recorded_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing_job() -> float:
        raise ValueError("no such thing")

    write_run(tmp_path / "0", ["mask.ratio=0.6"], 0.5)
    assert run_job(lambda: 0.25, tmp_path / "0") == 0.25
    assert run_job(failing_job, tmp_path / "1") is None
    assert "Traceback" in (tmp_path / "1" / "failed.txt").read_text()
    write_run(tmp_path / "2", ["mask.ratio=0.8"], 0.5)
    (tmp_path / "2" / "results.json").unlink()  # interrupted
    with pytest.raises(SystemExit) as exit_info:
        main([str(tmp_path)])
    assert exit_info.value.code == 1
    output = capsys.readouterr().out
    assert "job 1 failed: no such thing" in output
    assert "without results: job 2\n" in output
    assert (tmp_path / "sweep.json").is_file()
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="none: holds no results of a multirun"):
        main([str(tmp_path / "none")])


@pytest.mark.slow
def test_a_failed_job_that_succeeds_later_is_not_reported(tmp_path: Path) -> None:
    def failing_job() -> float:
        raise ValueError("no such thing")

    job = tmp_path / "0"
    write_run(job, ["mask.ratio=0.6"], 0.5)
    assert run_job(failing_job, job) is None
    assert read_failures(tmp_path) == {"0": "no such thing"}
    command = [sys.executable, "-m", "recon.train", *TINY, f"output_dir={job}"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert not (job / "failed.txt").exists()
    assert read_failures(tmp_path) == {}
    assert report_multirun(tmp_path) == 0


def test_the_objective_must_be_a_logged_metric() -> None:
    metrics = {"val/accuracy": torch.tensor(0.5)}
    assert select_objective(OmegaConf.create({"objective": "val/accuracy"}), metrics) == 0.5
    assert select_objective(OmegaConf.create({"objective": None}), metrics) is None
    with pytest.raises(ValueError, match="objective=loss: not logged, choose one of val/accuracy"):
        select_objective(OmegaConf.create({"objective": "loss"}), metrics)


SEARCHES = sorted(path.stem for path in (Path(conf_dir()) / "hparams_search").glob("*.yaml"))


@pytest.mark.parametrize("name", SEARCHES)
def test_every_value_of_a_search_composes(name: str) -> None:
    experiment = "finetune_furniture" if name == "finetune" else "pretrain_furniture"
    base = [f"hparams_search={name}", f"experiment={experiment}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", base, return_hydra_config=True)
        for option, values in cfg.hydra.sweeper.params.items():
            is_grid = "(" not in values
            for value in values.split(",") if is_grid else ["0.1"]:
                compose("train", [*base, f"{option}={value}"])
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert ("optuna" in cfg.hydra.sweeper._target_) == (cfg.objective is not None)


@pytest.mark.slow
def test_a_search_continues_after_a_failed_job(tmp_path: Path) -> None:
    options = [
        "hparams_search=finetune", "experiment=finetune_furniture", "debug=tiny", "eval.votes=0",
        "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=1", "output_dir=found",
        "data.fraction=choice(1.0,7.0)",
    ]  # fmt: skip
    completed = subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = read_failures(tmp_path / "found")
    assert 0 < len(failed) < 4, completed.stdout[-2000:] + completed.stderr[-2000:]
    assert completed.returncode == 1
    best = OmegaConf.load(tmp_path / "found" / "optimization_results.yaml")
    assert best.best_params["data.fraction"] == 1.0
    assert 0 <= best.best_value <= 1
    for reason in failed.values():
        assert reason.startswith("data.fraction=7.0: must be in (0, 1]")


def test_long_floats_in_options_are_shortened() -> None:
    drawn = "optimizer.lr=0.00018316240381848904 a=1.8316240381848904e-05 model.drop_path=0.1"
    assert shorten_options(drawn) == "optimizer.lr=0.000183 a=1.83e-05 model.drop_path=0.1"
    assert (
        shorten_options("mask.ratio=0.12345 name=v1.2 lr=5e-05")
        == "mask.ratio=0.12345 name=v1.2 lr=5e-05"
    )


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_reports_them(tmp_path: Path) -> None:
    options = [
        "hparams_search=pretrain", "experiment=pretrain_furniture", "debug=tiny",
        "hydra.sweeper.n_trials=2", "data.fraction=7.0", "output_dir=found",
    ]  # fmt: skip
    completed = subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 1
    assert "job 1 failed: " in completed.stdout
    assert "Traceback" not in completed.stderr


@pytest.mark.slow
def test_the_pretraining_search_logs_its_objective(tmp_path: Path) -> None:
    options = ["hparams_search=pretrain", "experiment=pretrain_furniture", "debug=tiny"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*options, "~callbacks.report", f"output_dir={tmp_path}"])
    assert select_objective(cfg, fit(cfg).metrics) is not None
