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
    collect_results,
    count_stored_trials,
    group_runs,
    main,
    read_failures,
    report_multirun,
    run_job,
)
from recon.reports.comparison import shorten_options
from recon.train import fit, select_objective, train_seeds
from recon.utils.scheduler_env import write_final_metrics
from runs import TINY


def run_folder(folder: Path, overrides: list[str], accuracy: float) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    row = {"overall_accuracy": {"mean": accuracy, "low": 0, "high": 1}}
    results = {"selection": "val", "results": {"one view": row}}
    (folder / "results.json").write_text(json.dumps(results))


def test_repeats_are_joined_and_options_kept_apart(tmp_path: Path) -> None:
    for number, (way, fold, accuracy) in enumerate([(5, 0, 0.5), (5, 1, 0.7), (10, 0, 0.4)]):
        told = [f"data.way={way}", f"data.fold={fold}", "seed=0"]
        run_folder(tmp_path / str(number), told, accuracy)
    (tmp_path / "3").mkdir()  # a job that failed
    name = "accuracy, one view, selection=val"
    assert collect_results(group_runs(tmp_path)) == {
        "data.way=5": {name: [50, 70]},
        "data.way=10": {name: [40]},
    }


def test_rooms_of_different_areas_are_scored_together(tmp_path: Path) -> None:
    kept = {1: [[3, 1], [0, 4]], 2: [[1, 3], [2, 2]]}
    for area, counts in kept.items():
        run_folder(tmp_path / str(area), [f"data.test_area={area}"], 0.5)
        row = {"miou": 0.5, "overall_accuracy": {"mean": 0.5}, "confusion": counts}
        found = {
            "selection": "val",
            "rooms": 1,
            "ids": {f"Area_{area}/a": 0.5},
            "results": {"w": row},
        }
        (tmp_path / str(area) / "results.json").write_text(json.dumps(found))
    (rows,) = collect_results(group_runs(tmp_path)).values()
    together = rows["mIoU, w, selection=val, rooms of all runs"]
    assert together == [pytest.approx(100 * (4 / 10 + 6 / 12) / 2)]
    assert rows["mIoU, w, selection=val"] == [50, 50]


@pytest.mark.slow
def test_seeds_are_run_one_after_the_other_and_joined(tmp_path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        told = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "seeds=[3,4]"]
        cfg = compose("train", [*told, f"output_dir={tmp_path}"])
    train_seeds(cfg)
    ((name, values),) = json.loads((tmp_path / "sweep.json").read_text())[""].items()
    assert name == "accuracy, one view, selection=val"
    for seed, value in zip((3, 4), values, strict=True):
        found = json.loads((tmp_path / f"seed_{seed}" / "results.json").read_text())
        assert value == 100 * found["results"]["one view"]["overall_accuracy"]["mean"]
        assert f"seed: {seed}" in (tmp_path / f"seed_{seed}" / "config.yaml").read_text()
    cfg.seeds = [1, 1]
    with pytest.raises(
        ValueError, match=r"seeds=\[1, 1\]: must be a list of different whole numbers"
    ):
        train_seeds(cfg)


def test_seeds_inside_a_multirun_are_found(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", ["data.way=5", "seeds=[0,1]"], 0.0)
    inner = (tmp_path / "0" / "results.json").read_text()
    (tmp_path / "0" / "results.json").unlink()
    for seed, accuracy in enumerate((0.5, 0.7)):
        (tmp_path / "0" / f"seed_{seed}").mkdir()
        found = inner.replace('"mean": 0.0', f'"mean": {accuracy}')
        (tmp_path / "0" / f"seed_{seed}" / "results.json").write_text(found)
    assert collect_results(group_runs(tmp_path)) == {
        "data.way=5": {"accuracy, one view, selection=val": [50, 70]}
    }


@pytest.mark.slow
def test_a_multirun_ends_in_a_table(tmp_path: Path) -> None:
    options = ["experiment=fewshot_furniture", "debug=tiny", "eval.votes=0", "data.fold=0,1"]
    done = subprocess.run(
        [sys.executable, "-m", "recon.train", "-m", *options],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "accuracy, one view" in done.stdout
    (table,) = tmp_path.rglob("sweep.json")
    (rows,) = json.loads(table.read_text()).values()
    assert [len(values) for values in rows.values()] == [2]
    assert len([*table.parent.glob("*/results.json")]) == 2


@pytest.mark.slow
def test_a_killed_job_of_submitit_fails_and_the_others_are_waited_for(tmp_path: Path) -> None:
    options = ["experiment=fewshot_furniture", "debug=tiny", "eval.votes=0", "output_dir=sweep",
               "hydra/launcher=submitit_local", "+callbacks.kill._target_=conftest.InterruptStep",
               "+callbacks.kill.number=9", "+callbacks.kill.step=0,99"]  # fmt: skip
    path = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "recon.train", "-m", *options],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "job 0 failed: ended without a result, as a killed job does" in done.stdout
    assert [*json.loads((tmp_path / "sweep" / "sweep.json").read_text())] == [
        "+callbacks.kill.step=99"
    ]


def test_options_that_all_jobs_share_are_left_out_and_the_plot_is_written(tmp_path: Path) -> None:
    for number, (ratio, accuracy) in enumerate([("0.6", 0.7), ("0.3", 0.5)]):
        told = ["experiment=x", f"mask.ratio={ratio}", "seed=0"]
        run_folder(tmp_path / str(number), told, accuracy)
    assert [*group_runs(tmp_path)] == ["mask.ratio=0.6", "mask.ratio=0.3"]
    assert report_multirun(tmp_path) == 0
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (910, 338)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_what_a_search_chose_by_is_shown_and_the_loss_of_runs_without_accuracies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = {"val/accuracy": 0.5, "train/total": 2.25, "train/other": float("nan")}
    for number, chosen in enumerate(("val/accuracy", "train/other", None)):
        folder = tmp_path / str(number)
        run_folder(folder, [f"mask.ratio=0.{number}"], 0.25)
        write_final_metrics(folder, logged)
        OmegaConf.save({"objective": chosen}, folder / "config.yaml")
    (tmp_path / "2" / "results.json").unlink()
    report_multirun(tmp_path)
    accuracy = {"accuracy, one view, selection=val": [25]}
    assert json.loads((tmp_path / "sweep.json").read_text()) == {
        "mask.ratio=0.0": accuracy | {"val/accuracy, as logged": [0.5]},
        "mask.ratio=0.1": accuracy,
        "mask.ratio=0.2": {"train/total, as logged": [2.25]},
    }
    told = capsys.readouterr().out
    assert "2.2500" in told
    assert "without results" not in told


def test_jobs_that_differ_by_their_seeds_have_one_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_folder(tmp_path / str(seed), ["experiment=x", f"seed={seed}"], 0.5)
    assert collect_results(group_runs(tmp_path)) == {
        "": {"accuracy, one view, selection=val": [50, 50]}
    }


def test_a_search_that_goes_on_has_the_number_of_its_trials_as_seed(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        told = ["hparams_search=pretrain", "experiment=pretrain_furniture"]
        told += [f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=x"]
        for trials in (0, 2):
            cfg = compose("train", told, return_hydra_config=True)
            assert cfg.hydra.sweeper.sampler.seed == trials
            study = optuna.create_study(storage=storage, study_name="x", load_if_exists=True)
            study.optimize(lambda trial: trial.number, n_trials=2)
    assert count_stored_trials(None, "x") == 0


def test_a_stop_ends_a_multirun_and_names_what_shows_finished_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> float:
        raise KeyboardInterrupt

    for kind in ("BasicLauncher", "SlurmLauncher"):
        hydra = SimpleNamespace(launcher=SimpleNamespace(_target_=kind))
        monkeypatch.setattr(HydraConfig, "get", lambda hydra=hydra: hydra)
        with pytest.raises(KeyboardInterrupt):
            run_job(stopped, tmp_path / "1")
        told = f"python -m recon.cli.multirun {tmp_path}\n" in capsys.readouterr().out
        assert told == (kind == "BasicLauncher")


def test_a_failed_job_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> float:
        raise ValueError("no such thing")

    run_folder(tmp_path / "0", ["mask.ratio=0.6"], 0.5)
    assert run_job(lambda: 0.25, tmp_path / "0") == 0.25
    assert run_job(broken, tmp_path / "1") is None
    assert "Traceback" in (tmp_path / "1" / "failed.txt").read_text()
    run_folder(tmp_path / "2", ["mask.ratio=0.8"], 0.5)
    (tmp_path / "2" / "results.json").unlink()  # cut short
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "job 1 failed: no such thing" in told
    assert "without results: job 2\n" in told
    assert (tmp_path / "sweep.json").is_file()
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="none: holds no results of a multirun"):
        main([str(tmp_path / "none")])


def test_a_failed_job_that_was_resumed_is_none(tmp_path: Path) -> None:
    def broken() -> float:
        raise ValueError("no such thing")

    job = tmp_path / "0"
    run_folder(job, ["mask.ratio=0.6"], 0.5)
    assert run_job(broken, job) is None
    assert read_failures(tmp_path) == {"0": "no such thing"}
    alone = [*TINY, f"output_dir={job}"]
    done = subprocess.run([sys.executable, "-m", "recon.train", *alone], capture_output=True)
    assert done.returncode == 0
    assert not (job / "failed.txt").exists()
    assert read_failures(tmp_path) == {}
    assert report_multirun(tmp_path) == 0


def test_what_is_optimized_must_have_been_logged() -> None:
    found = {"val/accuracy": torch.tensor(0.5)}
    assert select_objective(OmegaConf.create({"objective": "val/accuracy"}), found) == 0.5
    assert select_objective(OmegaConf.create({"objective": None}), found) is None
    with pytest.raises(ValueError, match="objective=loss: not logged, but val/accuracy"):
        select_objective(OmegaConf.create({"objective": "loss"}), found)


SEARCHES = sorted(path.stem for path in (Path(conf_dir()) / "hparams_search").glob("*.yaml"))


@pytest.mark.parametrize("name", SEARCHES)
def test_every_value_of_a_search_composes(name: str) -> None:
    experiment = "finetune_furniture" if name == "finetune" else "pretrain_furniture"
    base = [f"hparams_search={name}", f"experiment={experiment}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", base, return_hydra_config=True)
        for option, values in cfg.hydra.sweeper.params.items():
            grid = "(" not in values
            for value in values.split(",") if grid else ["0.1"]:
                compose("train", [*base, f"{option}={value}"])
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert ("optuna" in cfg.hydra.sweeper._target_) == (cfg.objective is not None)


@pytest.mark.slow
def test_a_search_goes_on_after_a_failed_job(tmp_path: Path) -> None:
    options = [
        "hparams_search=finetune", "experiment=finetune_furniture", "debug=tiny", "eval.votes=0",
        "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=1", "output_dir=found",
        "data.fraction=choice(1.0,7.0)",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = read_failures(tmp_path / "found")
    assert 0 < len(failed) < 4, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.returncode == 1
    best = OmegaConf.load(tmp_path / "found" / "optimization_results.yaml")
    assert best.best_params["data.fraction"] == 1.0
    assert 0 <= best.best_value <= 1
    for why in failed.values():
        assert why == "the fraction to train on must lie in (0, 1], got 7.0"


def test_numbers_that_a_search_draws_are_shown_short_and_others_as_they_are() -> None:
    drawn = "optimizer.lr=0.00018316240381848904 a=1.8316240381848904e-05 model.drop_path=0.1"
    assert shorten_options(drawn) == "optimizer.lr=0.000183 a=1.83e-05 model.drop_path=0.1"
    assert (
        shorten_options("mask.ratio=0.12345 name=v1.2 lr=5e-05")
        == "mask.ratio=0.12345 name=v1.2 lr=5e-05"
    )


@pytest.mark.slow
def test_a_search_of_which_all_trials_fail_names_them(tmp_path: Path) -> None:
    options = [
        "hparams_search=pretrain", "experiment=pretrain_furniture", "debug=tiny",
        "hydra.sweeper.n_trials=2", "data.fraction=7.0", "output_dir=found",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "recon.train", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "job 1 failed: " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_short_search_of_pretraining_has_its_measure(tmp_path: Path) -> None:
    options = ["hparams_search=pretrain", "experiment=pretrain_furniture", "debug=tiny"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*options, "~callbacks.report", f"output_dir={tmp_path}"])
    assert select_objective(cfg, fit(cfg).metrics) is not None
