"""Run trainings of a few seconds, composed as on the command line."""

import csv
from pathlib import Path

from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train

TINY = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report"]


def run(folder: Path, *options: str) -> dict[int, str]:
    """Train for three epochs of five steps; return the total loss of each step."""
    limits = ["trainer.limit_train_batches=5", "trainer.max_epochs=3", f"output_dir={folder}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*TINY, *limits, *options]))
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    return {int(row["step"]): row["train/total"] for row in rows}


EVERY_STEP = [
    "callbacks=within_epochs",
    "callbacks.within.every_n_train_steps=1",
    "+callbacks.within.save_top_k=-1",
    'callbacks.within.filename="{step}"',
]
