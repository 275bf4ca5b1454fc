"""Zero-shot classification."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from torch.nn.functional import cosine_similarity

import recon
from recon.data.datasets.furniture import Furniture, asset_path
from recon.teachers.cached import CachedTextTeacher

# A network whose text query learned to say what a text teacher says can be asked for classes it
# never saw labels of: the class is the one whose name, told to the teacher, is closest.
#
# ## Pretrain with a text teacher
#
# The embedded data bring the features of their texts, so nothing is downloaded. `debug=tiny` is a
# toy network trained for one step: leave it out to wait minutes for the figures of the
# [README](../../README.md).

os.chdir(tempfile.mkdtemp())
python = [sys.executable, "-m"]
tiny = ["debug=tiny", "~callbacks.report", "output_dir=run"]
subprocess.run([*python, "recon.train", "experiment=pretrain_furniture", *tiny], check=True)

# ## Measure
#
# 141 test shapes among 26 classes, with the protocol beside the figure.

weights = "checkpoint=run/checkpoints/last.ckpt"
measure = ["experiment=zeroshot_furniture", weights, "output_dir=zero_shot"]
subprocess.run([*python, "recon.evaluate", *measure], check=True)
results = json.loads(Path("zero_shot/results.json").read_text())
print(sorted(results))

# ## The same by hand
#
# Text features of the class names, standardised as in training, and the cosine to each cloud's
# projected query.

data = Furniture(["test"])
teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
classes = teacher({"text": list(data.classes)})
encoder = recon.PointEncoder("run/checkpoints/last.ckpt")
queries = encoder.encode([data.points(row) for row in range(5)]).text_projected
likeness = cosine_similarity(queries[:, None], classes[None], dim=-1)
for row, best in enumerate(likeness.argmax(1).tolist()):
    truth = data.classes[data.labels[row]]
    print(f"{data.ids[row]}: {data.classes[best]} (it is {truth})")
assert likeness.shape == (5, 26)

# With a live teacher (`teacher=clip`; weights are downloaded once) classes are any words: see
# [objects](../objects.md#your-own-shapes).
