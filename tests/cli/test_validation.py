"""Wrong numbers are named before anything starts; right ones pass."""

import math
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.validation import (
    NUMBER_RANGES,
    check_compile_strategy,
    check_devices,
    check_numbers,
    check_seeds,
)

WRONG = ["abc", True, -2, [1], {"a": 1}, math.nan, math.inf, -math.inf]


EXPERIMENTS = sorted(path.stem for path in (Path(conf_dir()) / "experiment").glob("*.yaml"))
TRAINED = [name for name in EXPERIMENTS if not name.startswith(("svm_", "zeroshot_"))]
OTHERWISE = ["trainer=multi_node", "callbacks=within_epochs", "callbacks/guard=skip"]


@pytest.fixture(scope="module")
def shipped() -> list[DictConfig]:
    """Every training that ships, and one with groups that hold further numbers."""
    told = [[f"experiment={name}"] for name in TRAINED]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return [compose("train", options) for options in [*told, [*told[0], *OTHERWISE]]]


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_what_is_no_number_within_its_bounds_is_named(name: str) -> None:
    for wrong in WRONG:
        cfg = OmegaConf.create({})
        OmegaConf.update(cfg, name, wrong, force_add=True)
        with pytest.raises(ValueError, match=f"{name}=.*: must be a "):
            check_numbers(cfg)
    if NUMBER_RANGES[name].is_integer:
        for wrong in (1.5, 1.0, -1.0):
            cfg = OmegaConf.create({})
            OmegaConf.update(cfg, name, wrong)
            with pytest.raises(ValueError, match=f"{name}={wrong}: must be a whole number"):
                check_numbers(cfg)


@pytest.mark.parametrize(
    ("name", "least", "most", "beyond"),
    [
        ("seed", 0, 2**32 - 1, 2**32),
        ("mask.ratio", 0, 0.999, 1.0),
        ("model.drop_path", 0, 1.0, 1.001),
        ("optimizer.lr", 0, 1e9, math.inf),
        ("trainer.max_epochs", -1, 10**9, 1.0),
        ("trainer.max_steps", -1, 10**9, 1.0),
        ("task.scheduler.t_initial", 1, 10**9, 0),
    ],
)
def test_bounds_are_those_of_what_takes_the_number(
    name: str, least: float, most: float, beyond: float
) -> None:
    cfg = OmegaConf.create({})
    for right in (least, most):
        OmegaConf.update(cfg, name, right, force_add=True)
        check_numbers(cfg)
    for wrong in (least - 1, beyond):
        OmegaConf.update(cfg, name, wrong)
        with pytest.raises(ValueError, match=f"{name}={re.escape(str(wrong))}: must be "):
            check_numbers(cfg)


def test_a_schedule_has_epochs(shipped: list[DictConfig]) -> None:
    for epochs in (0, -1):
        cfg = deepcopy(shipped[0])
        cfg.trainer.max_epochs = epochs
        with pytest.raises(ValueError, match=f"task.scheduler.t_initial={epochs}: must be "):
            check_numbers(cfg)
        cfg.task.scheduler = None
        check_numbers(cfg)


def test_what_ships_passes(shipped: list[DictConfig]) -> None:
    for cfg in shipped:
        check_numbers(cfg)


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_what_is_looked_at_is_an_option(name: str, shipped: list[DictConfig]) -> None:
    gone = object()
    assert any(OmegaConf.select(cfg, name, default=gone) is not gone for cfg in shipped)


@pytest.mark.parametrize("seeds", [3, "abc", [], [1, 1], [0, "a"], [-1], {"a": 1}, [0.5]])
def test_seeds_are_a_list_of_different_numbers(seeds: object) -> None:
    cfg = OmegaConf.create({"seeds": seeds})
    with pytest.raises(ValueError, match="must be a list of different whole numbers"):
        check_seeds(cfg.seeds)
    assert check_seeds(OmegaConf.create([2, 0])) == [2, 0]


def test_what_is_compiled_must_reach_the_processes_that_train() -> None:
    cfg = OmegaConf.create({"compile": True, "trainer": {"strategy": "ddp_spawn"}})
    with pytest.raises(ValueError, match="compile=true: .*ddp_spawn.*compile=false"):
        check_compile_strategy(cfg)
    check_compile_strategy(OmegaConf.merge(cfg, {"compile": False}))
    check_compile_strategy(OmegaConf.merge(cfg, {"trainer": {"strategy": "ddp"}}))


@pytest.mark.parametrize("asked", ["gpu", "cuda", "mps"])
def test_a_device_that_is_not_there_is_named(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"trainer.accelerator={asked}: .* trainer=cpu"):
        check_devices(OmegaConf.create({"accelerator": asked}))
    for accelerator in ("cpu", "auto"):
        told = OmegaConf.create({"accelerator": accelerator, "devices": 9999})
        with pytest.raises(ValueError, match="trainer.devices=9999: as many processes"):
            check_devices(told)
        check_devices(OmegaConf.create({"accelerator": accelerator, "devices": 2}))
