"""A new data set."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.io.file_checks import check_cloud
from recon.train import train

# Folders of common files need no code: see [your own shapes](own_data.py). This is for what lies
# on disk in a way of its own. Here: one text file a room, whose name ends in its class.

os.chdir(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for number in range(12):
    name = ("kitchen", "office")[number % 2]
    Path("scans/train").mkdir(parents=True, exist_ok=True)
    np.savetxt(f"scans/train/{number:02d}_{name}.txt", rng.normal(size=(300, 3)))

# ## The data set
#
# It says what there is (`ids`, and where known `classes` and `labels`) and reads one cloud when
# asked. Which way is up, it says too. A missing folder and a bad file are errors that name them;
# `check_cloud` looks at shape and numbers.


class Scans(PointCloudDataset):
    """Rooms in text files, named <number>_<class>.txt."""

    up = "z"

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.txt"))
        if not self.paths:
            raise FileNotFoundError(f"{folder}: holds no .txt files: set data.root to the scans")
        self.ids = [path.name for path in self.paths]
        names = [path.stem.split("_")[1] for path in self.paths]
        self.classes = sorted(set(names))
        self.labels = np.array([self.classes.index(name) for name in names])

    def cloud(self, index: int) -> Cloud:
        path = self.paths[index]
        return Cloud(check_cloud(np.loadtxt(path), path))

    def file_paths(self, index: int) -> Sequence[Path]:
        return [self.paths[index]]


# Colours, normals and labels of points go into `Cloud` as well; `image`, `texts` and `category`
# serve teachers.
#
# ## The data module
#
# It names the splits and opens a part. Batches, augmentation, workers, several processes,
# resuming in the middle of an epoch and `recon.prepare` are inherited.


class ScansDataModule(PointCloudDataModule):
    """The rooms, all of them for training."""

    splits = {"train": ["train"]}

    def read_part(self, part: str) -> Scans:
        return Scans(self.root / part)


data = ScansDataModule("scans", batch_size=4, target_up="y", keys={"label"})
data.setup("fit")
batch: dict[str, Any] = next(iter(data.train_dataloader()))
print(tuple(batch["points"].shape), batch["label"].tolist())
assert batch["points"].shape == (4, 300, 3)

# ## Train on it
#
# Programs take a class by its name: with the two classes above in `scans.py` of your working
# folder, type `python -m recon.train` and the options below, `data._target_` being
# `scans.ScansDataModule`. They can also stand in a file `data/scans.yaml` of a folder of yours,
# to be had by `--config-dir=<folder> data=scans`. Here the same in Python.

where = ["data._target_=__main__.ScansDataModule", "data.root=scans"]
where += ["data.split=train", "data.target_up=y"]
tiny = ["debug=tiny", "num_points=256", "output_dir=run"]
with initialize_config_dir(conf_dir(), version_base="1.3"):
    cfg = compose("train", ["experiment=pretrain_folder", "data=furniture", *where, *tiny])
trainer = train(cfg)
assert trainer.global_step == 1
assert Path("run/checkpoints/last.ckpt").is_file()
