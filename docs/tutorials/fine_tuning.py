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
# seconds. Leave it out for a real run.

os.chdir(tempfile.mkdtemp())
python = [sys.executable, "-m"]
tiny = ["debug=tiny", "~callbacks.report", "output_dir=pretrained"]
subprocess.run([*python, "recon.train", "experiment=pretrain_furniture", *tiny], check=True)

# ## A classifier
#
# Some train shapes are held out to select the checkpoint. The test shapes are read once, at the
# end. `protocol=linear` would train the head alone. Without `checkpoint`, training starts from
# scratch.

tune = ["experiment=finetune_furniture", "checkpoint=pretrained/checkpoints/last.ckpt"]
subprocess.run(
    [*python, "recon.train", *tune, "debug=tiny", "eval.votes=0", "output_dir=tuned"], check=True
)
print(sorted(json.loads(Path("tuned/results.json").read_text())))

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
