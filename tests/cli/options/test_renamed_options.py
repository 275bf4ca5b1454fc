import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.options.renamed_options import RENAMED_OPTIONS, check_renamed_options


@pytest.mark.parametrize(
    ("program", "argument", "advice"),
    [
        ("train", "pretrained=a.ckpt", "pretrained was renamed: write checkpoint=a.ckpt"),
        ("train", "+weights.text=0.5", "weights was renamed: write +loss_weights.text=0.5"),
        ("train", "~callbacks.svm", "callbacks.svm was renamed: write ~callbacks.linear_probe"),
        ("train", "eval.paper.x=1", "eval.paper was renamed: write eval.test.x=1"),
        ("evaluate", "weights=x=1.ckpt", "weights was renamed: write checkpoint=x=1.ckpt"),
        ("segment", "model=a.ckpt", "model was renamed: write checkpoint=a.ckpt"),
        ("embed", "points=64", "points was renamed: write num_points=64"),
        (
            "prepare", "data.count=64",
            "data.count was renamed: write data.num_surface_points=64 (folders) or "
            "data.num_fps_points=64 (ModelNet)",
        ),
    ],
)  # fmt: skip
def test_old_names_exit_with_the_new_name(program: str, argument: str, advice: str) -> None:
    with pytest.raises(SystemExit, match=r"error: ") as error:
        check_renamed_options(program, ["a=b", argument])
    assert str(error.value) == f"error: {advice}"


def test_current_options_pass() -> None:
    check_renamed_options("train", ["model=small", "teacher.weights=x", "num_points=3", "--help"])
    check_renamed_options("train", ["+callbacks.interrupt._target_=my.Callback"])
    check_renamed_options("evaluate", ["classes=[a,b]", "data.up=z"])


def has_option(cfg: DictConfig, option: str) -> bool:
    parent, _, key = option.partition("=")[0].rpartition(".")
    # `in` is False for mandatory options without a value, although they are keys.
    return key in list(OmegaConf.select(cfg, parent) if parent else cfg)


@pytest.mark.parametrize("program", RENAMED_OPTIONS)
def test_new_names_exist_and_old_names_do_not(program: str) -> None:
    names = {"train": ["student=part_segmenter", "probe=furniture", "callbacks/guard=skip"]}
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(program, names.get(program, []))
    for old, new in RENAMED_OPTIONS[program].items():
        assert has_option(cfg, new), new
        assert not has_option(cfg, old), old


@pytest.mark.parametrize("program", RENAMED_OPTIONS)
def test_each_program_exits_with_the_new_name(program: str) -> None:
    old, new = next(iter(RENAMED_OPTIONS[program].items()))
    command = [sys.executable, "-m", f"recon.{program}", f"{old}=x"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert completed.stderr.strip() == f"error: {old} was renamed: write {new}=x"
