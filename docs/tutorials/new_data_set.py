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

# Folders of common files need no code: see [your own shapes](own_data.py). This tutorial is for
# other layouts on disk. The example has one text file per room, whose name ends in its class.

os.chdir(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for number in range(12):
    name = ("kitchen", "office")[number % 2]
    Path("scans/train").mkdir(parents=True, exist_ok=True)
    np.savetxt(f"scans/train/{number:02d}_{name}.txt", rng.normal(size=(300, 3)))

# ## The data set
#
# A data set lists its samples (`ids`, and optionally `classes` and `labels`), sets the up axis, and
# reads one cloud by index. Errors name a missing folder or an invalid file; `check_cloud` checks
# shape and values.


class Scans(PointCloudDataset):
    """Rooms in text files, named <number>_<class>.txt."""

    up = "z"

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.txt"))
        if not self.paths:
            raise FileNotFoundError(f"{folder}: has no .txt files: set data.root to the scans")
        self.ids = [path.name for path in self.paths]
        names = [path.stem.split("_")[1] for path in self.paths]
        self.classes = sorted(set(names))
        self.labels = np.array([self.classes.index(name) for name in names])

    def cloud(self, index: int) -> Cloud:
        path = self.paths[index]
        return Cloud(check_cloud(np.loadtxt(path), path))

    def file_paths(self, index: int) -> Sequence[Path]:
        return [self.paths[index]]


# `Cloud` also holds colors, normals and labels of the points. The methods `image`, `texts` and
# `category` provide inputs for teachers.
#
# ## The data module
#
# A data module defines the splits and opens a part. It inherits batches, augmentation, workers,
# distributed training, resuming within an epoch, and `recon.prepare`.


class ScansDataModule(PointCloudDataModule):
    """Provide batches of rooms, all of them for training."""

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
# Programs accept a class by its name. Save the two classes above as `scans.py` in your working
# folder, and run `python -m recon.train` with the options below and
# `data._target_=scans.ScansDataModule`. The options can also be in a file `data/scans.yaml` of your
# own configuration folder, selected by `--config-dir=<folder> data=scans`. This is the same in
# Python.

data_options = ["data._target_=__main__.ScansDataModule", "data.root=scans"]
data_options += ["data.split=train", "data.target_up=y"]
tiny = ["debug=tiny", "num_points=256", "output_dir=run"]
with initialize_config_dir(conf_dir(), version_base="1.3"):
    cfg = compose("train", ["experiment=pretrain_folder", "data=furniture", *data_options, *tiny])
trainer = train(cfg)
assert trainer.global_step == 1
assert Path("run/checkpoints/last.ckpt").is_file()
