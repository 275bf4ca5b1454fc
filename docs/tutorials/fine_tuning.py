"""Fine-tuning."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import trimesh

import recon
from recon.data.datasets.furniture import Furniture

# ## A pretrained network
#
# `debug=tiny`, here and below, is a toy network trained for one step, so that this page runs in
# seconds. Leave it out for a real run. To start from the checkpoint of the demo, pass it to this
# page: `python docs/tutorials/fine_tuning.py <checkpoint>`.

checkpoint = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
os.chdir(tempfile.mkdtemp())
python, size = [sys.executable, "-m"], list[str]()
if checkpoint is None:
    size = ["debug=tiny"]
    options = ["experiment=pretrain_furniture", "~callbacks.report", "output_dir=pretrained"]
    subprocess.run([*python, "recon.train", *options, *size], check=True)
    checkpoint = Path("pretrained/checkpoints/last.ckpt")

# ## A classifier
#
# Some train shapes are held out to select the checkpoint. The test shapes are read once, at the
# end. `protocol=linear` would train the head alone. Without `checkpoint`, training starts from
# scratch. One epoch keeps this page short: leave out `trainer.max_epochs` and `eval.votes` for a
# real run.

tune = ["experiment=finetune_furniture", f"checkpoint={checkpoint}", "output_dir=tuned"]
short = [*size, "trainer.max_epochs=1", "eval.votes=0"]
subprocess.run([*python, "recon.train", *tune, *short], check=True)
print(json.loads(Path("tuned/results.json").read_text())["metrics"]["overall_accuracy"])

# ## In Python
#
# The network takes clouds (B, N, 3) after the test transform; `class_names` names its logits.

classifier = recon.load("tuned/checkpoints/best.ckpt", task="classify")
data = Furniture(["test"])
with torch.inference_mode():
    logits = classifier(torch.from_numpy(data.points(0))[None, :1024])
print(classifier.class_names[int(logits.argmax())], "for", data.ids[0])
assert logits.shape == (1, len(data.classes))

# ## On files
#
# Classify a folder of shapes; the predictions are in `predictions.csv`.

Path("mine").mkdir()
trimesh.creation.box([1, 0.1, 1]).export("mine/board.ply")
trimesh.creation.cylinder(radius=0.3, height=1).export("mine/pipe.ply")
options = ["task=classify", "checkpoint=tuned/checkpoints/best.ckpt", "output_dir=evaluated"]
mine = ["data=folder", "data.root=mine", "data.test_split=all", "data.num_workers=0"]
subprocess.run([*python, "recon.evaluate", *options, *mine], check=True)
print(Path("evaluated/predictions.csv").read_text())
assert len(Path("evaluated/predictions.csv").read_text().splitlines()) == 3
