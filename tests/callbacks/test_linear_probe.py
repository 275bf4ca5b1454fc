"""The linear probe during pretraining logs its accuracy and does not change the training."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer

from recon.callbacks.linear_probe import LinearProbeCallback
from recon.cli.config_dir import conf_dir
from recon.data.datasets.furniture import FurnitureDataModule
from recon.data.transforms import FarthestPointSample
from recon.train import train

OPTIONS = ["experiment=pretrain_furniture", "debug=tiny", "teacher=untrained", "~callbacks.report",
        "trainer.max_epochs=2", "data.batch_size=32"]  # fmt: skip


@pytest.mark.slow
def test_the_probe_does_not_change_training(tmp_path: Path) -> None:
    states = {}
    for name, options in {
        "with": ["probe=furniture", "callbacks.linear_probe.every_n_epochs=2"],
        "": [],
    }.items():
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", [*OPTIONS, *options, f"output_dir={tmp_path / name}"])
        trainer = train(cfg)
        states[name] = trainer.lightning_module.model.state_dict()
        accuracy = trainer.callback_metrics.get("svm/accuracy_held_out")
        assert (accuracy is not None) == bool(name)
        assert accuracy is None or 0 < accuracy < 1
    assert all(torch.equal(states["with"][k], states[""][k]) for k in states[""])


def test_the_probe_requires_an_evaluation_split_and_a_positive_interval() -> None:
    with pytest.raises(ValueError, match="set val_split or val_share of its data"):
        LinearProbeCallback(FurnitureDataModule(split="train"), FarthestPointSample(64))
    data = FurnitureDataModule(split="train", val_split="test")
    assert LinearProbeCallback(data, FarthestPointSample(64)).name == "svm/accuracy_test"
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1, got 0"):
        LinearProbeCallback(data, FarthestPointSample(64), every_n_epochs=0)


def test_the_probe_is_of_pretraining() -> None:
    data = FurnitureDataModule(split="train", val_split="test")
    probe = LinearProbeCallback(data, FarthestPointSample(64))
    with pytest.raises(ValueError, match="is of pretraining, and LightningModule is tested itself"):
        probe.setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")
