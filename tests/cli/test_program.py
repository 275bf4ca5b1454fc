"""Programs print how to start them, and answer wrong options in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from recon import __main__ as console
from recon.cli.config_dir import conf_dir
from recon.cli.program import PROGRAMS, run_program

RECON = Path(__file__).parents[2] / "src" / "recon"


@pytest.fixture
def compose_by_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DictConfig]:
    def run(program: str, *words: str) -> DictConfig:
        received = []
        main = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=program)
        output = [f"hydra.run.dir={tmp_path}", "hydra.output_subdir=null"]
        monkeypatch.setattr(sys, "argv", [program, *words, *output])
        run_program(program, main(received.append))
        return received[0]

    return run


def test_each_program_is_listed_with_its_commands() -> None:
    modules = {path.stem for path in RECON.glob("*.py") if "run_program(" in path.read_text()}
    assert modules == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_without_options_prints_how_to_start(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as exited:
        run_program(name, lambda: pytest.fail("it ran"))
    assert exited.value.code == 2
    commands = [
        line for line in capsys.readouterr().out.splitlines() if f"python -m recon.{name} " in line
    ]
    assert len(commands) == len(PROGRAMS[name].commands) + 1
    assert (
        name != "train"
        or [
            "pretrain_furniture" in commands[0],
            "pretrain_folder" in commands[1],
            "pretrain_shapenet" in commands[2],
        ]
        == [True] * 3
    )


def test_wrong_options_exit_with_the_right_ones(
    compose_by_program: Callable[..., DictConfig],
) -> None:
    for words, message in (
        (["+trainer.max_epoch=1"], "trainer.max_epoch=1: .*did you mean trainer.max_epochs=1"),
        (["experiment=pretrain_furnitur"], "did you mean experiment=pretrain_furniture?"),
        (["student=classifier", "mask.ratio=0.5"], "there is no mask in this configuration"),
        (["experiment=svm_furniture"], "python -m recon.evaluate experiment=svm_furniture"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{message}"):
            compose_by_program("train", *words)


def test_options_in_other_forms_are_taken(compose_by_program: Callable[..., DictConfig]) -> None:
    cfg = compose_by_program(
        "train", "trainer.val_check_interval=3", "+seed=2", "probe=none", "model=SMALL",
        "+callbacks.own._target_=nowhere.Callback", "loss_weights.text=0.5", "logger=off",
        "data.root=my shapes (1)", "scheduler=null",
    )  # fmt: skip
    assert (cfg.trainer.val_check_interval, cfg.seed, cfg.model.dim) == (3, 2, 256)
    assert cfg.callbacks.own == {"_target_": "nowhere.Callback"}
    assert (cfg.logger, cfg.task.scheduler, cfg.loss_weights) == (None, None, {"text": 0.5})
    assert cfg.data.root == "my shapes (1)"


def test_the_command_lists_the_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recon"])
    console.main()
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert listed == list(PROGRAMS)
    monkeypatch.setattr(sys, "argv", ["recon", "trian"])
    with pytest.raises(SystemExit, match="trian: no such program: did you mean train"):
        console.main()


@pytest.mark.slow
def test_the_command_runs_a_program() -> None:
    command = [sys.executable, "-m", "recon", "figures", "run=/nowhere", "dpi=high"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert "dpi must be an integer from 20 to 1200, got 'high'" in completed.stderr
