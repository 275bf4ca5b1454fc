"""A run starts with a short summary; the whole configuration is in its folder."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.cli.run_summary import count_steps, print_summary
from recon.train import train
from runs import TINY


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (3, 6)),
        ({"limit_train_batches": 2}, (2, 4)),
        ({"limit_train_batches": 0.5}, (1, 2)),
        ({"max_steps": 4}, (3, 4)),
        ({"max_steps": 9}, (3, 6)),
        ({"max_epochs": -1}, (3, None)),
        ({"accumulate_grad_batches": 2}, (3, 4)),
        ({"world_size": 2}, (1, 2)),
    ],
)
def test_steps_are_those_of_the_trainer(
    options: dict[str, Any], expected: tuple[int, int | None]
) -> None:
    defaults = {"limit_train_batches": 1.0, "max_steps": -1, "max_epochs": 2}
    defaults |= {"accumulate_grad_batches": 1, "world_size": 1}
    trainer: Any = SimpleNamespace(**defaults | options)
    data = SimpleNamespace(dataset=range(10), batch_size=4, drop_last=False)
    assert count_steps(data, trainer) == expected


def test_rows_are_aligned_and_empty_ones_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary("run[0]", {"a": "x\x1b[31m", "none": None, "longer": "y"})
    assert capsys.readouterr().out == "run[0]\n  a       x\\x1b[31m\n  longer  y\n\n"


def test_a_run_without_logger_tells_what_it_does_and_leaves_metrics_and_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, "~logger", "trainer.max_epochs=2", "trainer.limit_train_batches=2"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*options, f"output_dir={tmp_path}"]))
    printed = capsys.readouterr().out
    title, *rows = printed.split("\n\n")[0].splitlines()
    assert title == "pretrain_furniture"
    assert 10 <= len(rows) <= 15
    told = dict(row.split(maxsplit=1) for row in rows)
    assert told["data"] == "Furniture: 673 samples of pretrain; 1,024 points each"
    assert told["length"] == "2 epochs of 2 steps, 4 in all"
    assert told["batch"] == "4 samples"
    assert "rate 0.002" in told["optimizer"]
    assert told["output"] == str(tmp_path)
    assert told["resume"].endswith(f"ckpt_path={tmp_path}/checkpoints/last.ckpt")
    assert "_target_" not in printed
    assert "_target_" in (tmp_path / "config.yaml").read_text()
    assert printed.strip() in (tmp_path / "log.txt").read_text()
    with (tmp_path / "metrics.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["train/total"]]
    assert steps == ["0", "1", "2", "3"]
