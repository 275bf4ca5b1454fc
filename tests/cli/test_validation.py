"""Invalid numbers raise ValueError that names the option; valid numbers pass."""

import math
import re
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.fabric.connector import _PRECISION_INPUT
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.validation import (
    BOOLEAN_OPTIONS,
    NUMBER_RANGES,
    PRECISIONS,
    check_batch_size,
    check_compile_strategy,
    check_devices,
    check_numbers,
    check_seeds,
    check_tested_task,
    check_trainer_choices,
)

INVALID_NUMBERS = ["abc", True, -2, [1], {"a": 1}, math.nan, math.inf, -math.inf]


EXPERIMENTS = sorted(path.stem for path in (Path(conf_dir()) / "experiment").glob("*.yaml"))
TRAINED = [name for name in EXPERIMENTS if not name.startswith(("svm_", "zeroshot_"))]
EXTRA_GROUPS = ["trainer=multi_node", "callbacks=within_epochs", "callbacks/guard=skip"]


@pytest.fixture(scope="module")
def shipped_configs() -> list[DictConfig]:
    """Compose every training experiment, and one with groups that have further numbers."""
    experiments = [[f"experiment={name}"] for name in TRAINED]
    with_extra_groups = [*experiments[0], *EXTRA_GROUPS]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return [compose("train", options) for options in [*experiments, with_extra_groups]]


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_numbers_out_of_range_raise_value_error(name: str) -> None:
    for invalid in INVALID_NUMBERS:
        cfg = OmegaConf.create({})
        OmegaConf.update(cfg, name, invalid, force_add=True)
        with pytest.raises(ValueError, match=f"{name}=.*: must be a "):
            check_numbers(cfg)
    if NUMBER_RANGES[name].is_integer:
        for invalid in (1.5, 1.0, -1.0):
            cfg = OmegaConf.create({})
            OmegaConf.update(cfg, name, invalid)
            with pytest.raises(ValueError, match=f"{name}={invalid}: must be a whole number"):
                check_numbers(cfg)


@pytest.mark.parametrize(
    ("name", "low", "high", "too_high"),
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
def test_ranges_include_their_bounds_and_nothing_beyond(
    name: str, low: float, high: float, too_high: float
) -> None:
    cfg = OmegaConf.create({})
    for valid in (low, high):
        OmegaConf.update(cfg, name, valid, force_add=True)
        check_numbers(cfg)
    for invalid in (low - 1, too_high):
        OmegaConf.update(cfg, name, invalid)
        with pytest.raises(ValueError, match=f"{name}={re.escape(str(invalid))}: must be "):
            check_numbers(cfg)


def test_a_schedule_requires_epochs(shipped_configs: list[DictConfig]) -> None:
    for epochs in (0, -1):
        cfg = deepcopy(shipped_configs[0])
        cfg.trainer.max_epochs = epochs
        with pytest.raises(ValueError, match=f"task.scheduler.t_initial={epochs}: must be "):
            check_numbers(cfg)
        cfg.task.scheduler = None
        check_numbers(cfg)


def test_shipped_configurations_pass(shipped_configs: list[DictConfig]) -> None:
    for cfg in shipped_configs:
        check_numbers(cfg)


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_checked_names_are_options(name: str, shipped_configs: list[DictConfig]) -> None:
    missing = object()
    assert any(
        OmegaConf.select(cfg, name, default=missing) is not missing for cfg in shipped_configs
    )


@pytest.mark.parametrize("seeds", [3, "abc", [], [1, 1], [0, "a"], [-1], {"a": 1}, [0.5]])
def test_seeds_must_be_a_list_of_distinct_whole_numbers(seeds: object) -> None:
    cfg = OmegaConf.create({"seeds": seeds})
    with pytest.raises(ValueError, match="must be a list of distinct whole numbers"):
        check_seeds(cfg.seeds)
    assert check_seeds(OmegaConf.create([2, 0])) == [2, 0]


def test_compile_with_spawned_processes_raises_value_error() -> None:
    cfg = OmegaConf.create({"compile": True, "trainer": {"strategy": "ddp_spawn"}})
    with pytest.raises(ValueError, match="compile=true: .*ddp_spawn.*compile=false"):
        check_compile_strategy(cfg)
    check_compile_strategy(OmegaConf.merge(cfg, {"compile": False}))
    check_compile_strategy(OmegaConf.merge(cfg, {"trainer": {"strategy": "ddp"}}))


@pytest.mark.parametrize("unavailable", ["gpu", "cuda", "mps"])
def test_unavailable_devices_raise_value_error(
    unavailable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"trainer.accelerator={unavailable}: .* trainer=cpu"):
        check_devices(OmegaConf.create({"accelerator": unavailable}))
    for accelerator in ("cpu", "auto"):
        trainer = OmegaConf.create({"accelerator": accelerator, "devices": 9999})
        with pytest.raises(ValueError, match="trainer.devices=9999: too many processes"):
            check_devices(trainer)
        check_devices(OmegaConf.create({"accelerator": accelerator, "devices": 2}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "trainer.precision=fp16: did you mean trainer.precision=16-mixed"),
        ({"precision": "half"}, "did you mean trainer.precision=16-mixed"),
        ({"precision": "int8"}, "trainer.precision=int8: choose among 32-true, bf16-mixed"),
        ({"accelerator": "cudaa"}, "trainer.accelerator=cudaa: choose among auto, gpu, "),
        ({"strategy": "dpp"}, "trainer.strategy=dpp: choose among auto, ddp"),
        ({"devices": 0}, "trainer.devices=0: must be a number of devices of at least 1"),
        ({"devices": "all"}, "trainer.devices=all: must be"),
        ({"devices": True}, "trainer.devices=True: must be"),
    ],
)
def test_trainer_options_have_choices(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_trainer_choices(OmegaConf.create(options))


def test_precisions_are_those_of_lightning() -> None:
    known = {str(name) for kind in get_args(_PRECISION_INPUT) for name in get_args(kind)}
    assert set(PRECISIONS) == known
    for precision in PRECISIONS:
        check_trainer_choices(OmegaConf.create({"precision": precision, "devices": "0,1"}))


def test_a_head_with_batch_norm_requires_two_samples(shipped_configs: list[DictConfig]) -> None:
    classifiers = [cfg for cfg in shipped_configs if cfg.name.startswith(("fine", "few"))]
    assert classifiers
    for cfg in map(deepcopy, shipped_configs):
        check_batch_size(cfg)
        cfg.data.batch_size = 1
        if cfg.name.startswith(("fine", "few")):
            with pytest.raises(ValueError, match="data.batch_size=1: must be at least 2"):
                check_batch_size(cfg)
        else:
            check_batch_size(cfg)


@pytest.mark.parametrize("value", ["maybe", 1, "yes"])
def test_booleans_are_true_or_false(value: object) -> None:
    for name in BOOLEAN_OPTIONS:
        cfg = OmegaConf.create({})
        OmegaConf.update(cfg, name, True, force_add=True)
        check_numbers(cfg)
        OmegaConf.update(cfg, name, value)
        with pytest.raises(ValueError, match=f"{name}={value}: must be true or false"):
            check_numbers(cfg)


def test_a_run_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="seed=None: must be a whole number"):
        check_numbers(OmegaConf.create({"seed": None}))


def test_a_student_of_pretraining_cannot_be_tested(shipped_configs: list[DictConfig]) -> None:
    for cfg in map(deepcopy, shipped_configs):
        check_tested_task(cfg)
        if "eval" in cfg:
            cfg.task = {"_target_": "recon.tasks.pretrain.GenerativeStudent"}
            with pytest.raises(ValueError, match="GenerativeStudent is pretrained and not tested"):
                check_tested_task(cfg)
