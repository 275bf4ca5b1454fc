from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recon.callbacks.history import get_curves
from recon.cli.config_dir import conf_dir
from recon.train import train


@pytest.mark.parametrize(("every", "kept"), [(0, []), (1, [1, 2, 3]), (2, [2])])
def test_steps_are_kept_as_often_as_they_are_logged(
    every: int, kept: list[int], tmp_path: Path
) -> None:
    told = [f"trainer.log_every_n_steps={every}", "trainer.limit_train_batches=3"]
    told += ["~callbacks.report", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        trainer = train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *told]))
    assert trainer.global_step == 3
    assert [*get_curves(trainer).get("total", {})] == kept
