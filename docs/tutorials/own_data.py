"""Your own shapes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import trimesh
from pyarrow import parquet

# All files are written into a new folder.

own_checkpoint = Path("run/checkpoints/last.ckpt")
checkpoint = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else own_checkpoint
os.chdir(tempfile.mkdtemp())
print(Path.cwd())

# ## A folder of shapes
#
# A folder has files in any of the [formats](../data/folder.md#formats), with or without a subfolder
# for each class. This example generates twelve meshes of three classes with z up, as in many scans
# and CAD models.

rng = np.random.default_rng(0)
makers = {
    "box": lambda size: trimesh.creation.box(size),
    "pipe": lambda size: trimesh.creation.cylinder(radius=size[0] / 4, height=2 * size[2]),
    "ball": lambda size: trimesh.creation.icosphere(radius=size[0]),
}
for name, make in makers.items():
    Path("shapes", name).mkdir(parents=True)
    for number in range(4):
        make(rng.uniform(0.5, 2, 3)).export(f"shapes/{name}/{number}.ply")

# ## Pretrain
#
# The generative student needs neither labels nor images. `debug=tiny` is a toy network with one
# step per epoch, so that this page runs in seconds: omit `*tiny` for a real run.

python = [sys.executable, "-m"]
tiny = [
    "debug=tiny",
    "trainer.max_epochs=2",
    "num_points=256",
    "data.num_points=512",
    "output_dir=run",
]
shapes = ["data.root=shapes", "data.up=z", "data.num_surface_points=512"]
subprocess.run([*python, "recon.train", "experiment=pretrain_folder", *shapes, *tiny], check=True)
assert Path("run/checkpoints/last.ckpt").is_file()
assert Path("run/report.html").is_file()

# The files are read in every epoch. For more than a few files, run `python -m recon.prepare
# data=folder` with the same data options. It checks the files and writes them into
# `shapes-prepared`, which is faster to read.

# ## Extract features
#
# This writes a table with one row of features per shape ([details](../search.md)). It needs
# `pip install "recon-pointcloud[parquet]"`. `python docs/tutorials/own_data.py <checkpoint>` uses
# another network here, such as that of the demo.

options = [f"checkpoint={checkpoint}", "files=shapes", "up=z", "num_surface_points=512"]
subprocess.run(
    [*python, "recon.embed", *options, "out=features.parquet", "num_workers=0"], check=True
)

table = parquet.read_table("features.parquet")
features = np.stack(table["pooled"].to_numpy())
print(features.shape, sorted(set(table["label"].to_pylist())))
assert len(features) == 12
