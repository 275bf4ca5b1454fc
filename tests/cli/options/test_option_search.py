"""Names are found among the options, groups and choices of a program."""

from functools import partial

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.options.option_search import list_arguments, suggest_options


@pytest.fixture(scope="module")
def configs() -> dict[str, DictConfig]:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        load = partial(compose, return_hydra_config=True)
        train = load("train", ["experiment=pretrain_furniture"])
        return {"train": train, "evaluate": load("evaluate"), "embed": load("embed")}


@pytest.mark.parametrize(
    ("program", "option", "expected"),
    [
        ("train", "trainer.max_epoch=1", "trainer.max_epochs=1"),
        ("train", "trainer.val_chek_interval=1", "trainer.val_check_interval=1"),
        ("train", "max_epochs=1", "trainer.max_epochs=1"),
        ("train", "epochs=1", "trainer.max_epochs=1"),
        ("train", "trainer.gpus=2", "trainer.devices=2"),
        ("train", "lr=1", "optimizer.lr=1"),
        ("train", "batch_size=1", "data.batch_size=1"),
        ("train", "mask.rato=1", "mask.ratio=1"),
        ("train", "modl=small", "model=small"),
        ("train", "model.size=small", "model=small"),
        ("train", "loss=infonce", "loss/distillation=infonce"),
        ("train", "loss/distilation=infonce", "loss/distillation=infonce"),
        ("train", "wandb=true", "logger=wandb"),
        ("train", "callbacks.raport=null", "callbacks.report=null"),
        ("train", "data.anotate=1", None),
        ("evaluate", "trainer=cpu", None),
        ("evaluate", "checkpont=x", "checkpoint=x"),
        ("embed", "file=x", "files=x"),
    ],
)
def test_misspelled_options_are_found(
    configs: dict[str, DictConfig], program: str, option: str, expected: str | None
) -> None:
    found = suggest_options(configs[program], *option.split("="))
    assert found == ([] if expected is None else [expected])


def test_arguments_include_those_of_base_classes() -> None:
    target = "recon.data.datasets.modelnet.ModelNetDataModule"
    names = list_arguments(OmegaConf.create({"_target_": target}))
    assert {"number_of_classes", "batch_size", "transform"} <= names
    assert "self" not in names
    assert "max_epochs" in list_arguments(OmegaConf.create({"_target_": "lightning.Trainer"}))
    assert list_arguments(OmegaConf.create({"a": 1})) == set()
    assert list_arguments(OmegaConf.create({"_target_": "nowhere.Class"})) is None
