from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recon.callbacks.history import get_curves
from recon.cli.config_dir import conf_dir
from recon.train import train


@pytest.mark.parametrize(("interval", "steps"), [(0, []), (1, [1, 2, 3]), (2, [2])])
def test_history_records_every_logged_step(interval: int, steps: list[int], tmp_path: Path) -> None:
    options = [f"trainer.log_every_n_steps={interval}", "trainer.limit_train_batches=3"]
    options += ["~callbacks.report", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        trainer = train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *options]))
    assert trainer.global_step == 3
    assert [*get_curves(trainer).get("total", {})] == steps
