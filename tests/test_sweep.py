import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recon.entry import conf_dir
from recon.sweep import collect, jobs
from recon.train import train_seeds


def run_folder(folder: Path, overrides: list[str], accuracy: float) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    row = {"overall_accuracy": {"mean": accuracy, "low": 0, "high": 1}}
    results = {"protocol": "honest", "results": {"one view": row}}
    (folder / "results.json").write_text(json.dumps(results))


def test_repeats_are_joined_and_options_kept_apart(tmp_path: Path) -> None:
    for number, (way, fold, accuracy) in enumerate([(5, 0, 0.5), (5, 1, 0.7), (10, 0, 0.4)]):
        told = [f"data.way={way}", f"data.fold={fold}", "seed=0"]
        run_folder(tmp_path / str(number), told, accuracy)
    (tmp_path / "3").mkdir()  # a job that failed
    name = "accuracy, one view, honest"
    assert collect(jobs(tmp_path)) == {"data.way=5": {name: [50, 70]}, "data.way=10": {name: [40]}}


def test_rooms_of_different_areas_are_scored_together(tmp_path: Path) -> None:
    kept = {1: [[3, 1], [0, 4]], 2: [[1, 3], [2, 2]]}
    for area, counts in kept.items():
        run_folder(tmp_path / str(area), [f"data.test_area={area}"], 0.5)
        row = {"miou": 0.5, "overall_accuracy": {"mean": 0.5}, "confusion": counts}
        found = {
            "protocol": "honest",
            "rooms": 1,
            "ids": {f"Area_{area}/a": 0.5},
            "results": {"w": row},
        }
        (tmp_path / str(area) / "results.json").write_text(json.dumps(found))
    (rows,) = collect(jobs(tmp_path)).values()
    together = rows["mIoU, w, honest, rooms of all runs"]
    assert together == [pytest.approx(100 * (4 / 10 + 6 / 12) / 2)]
    assert rows["mIoU, w, honest"] == [50, 50]


def test_seeds_are_run_one_after_the_other_and_joined(tmp_path: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        told = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "seeds=[3,4]"]
        cfg = compose("train", [*told, f"output_dir={tmp_path}"])
    train_seeds(cfg)
    ((name, values),) = json.loads((tmp_path / "sweep.json").read_text())[""].items()
    assert name == "accuracy, one view, honest"
    for seed, value in zip((3, 4), values, strict=True):
        found = json.loads((tmp_path / f"seed_{seed}" / "results.json").read_text())
        assert value == 100 * found["results"]["one view"]["overall_accuracy"]["mean"]
        assert f"seed: {seed}" in (tmp_path / f"seed_{seed}" / "config.yaml").read_text()
    cfg.seeds = [1, 1]
    with pytest.raises(ValueError, match=r"seeds must be different numbers, got \[1, 1\]"):
        train_seeds(cfg)


def test_seeds_inside_a_multirun_are_found(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", ["data.way=5", "seeds=[0,1]"], 0.0)
    inner = (tmp_path / "0" / "results.json").read_text()
    (tmp_path / "0" / "results.json").unlink()
    for seed, accuracy in enumerate((0.5, 0.7)):
        (tmp_path / "0" / f"seed_{seed}").mkdir()
        found = inner.replace('"mean": 0.0', f'"mean": {accuracy}')
        (tmp_path / "0" / f"seed_{seed}" / "results.json").write_text(found)
    assert collect(jobs(tmp_path)) == {"data.way=5": {"accuracy, one view, honest": [50, 70]}}


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
