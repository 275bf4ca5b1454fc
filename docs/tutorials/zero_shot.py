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

# A network whose text query was trained with a text teacher can classify without class labels: it
# predicts the class whose name has the most similar text feature.
#
# ## Pretrain with a text teacher
#
# The bundled data include text features, so nothing is downloaded. `debug=tiny` is a toy network
# trained for one step. Without it, training takes minutes and gives the results of the
# [README](../../README.md). To use the checkpoint of that demo, pass it to this page:
# `python docs/tutorials/zero_shot.py <checkpoint>`.

checkpoint = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
os.chdir(tempfile.mkdtemp())
python = [sys.executable, "-m"]
if checkpoint is None:
    tiny = ["debug=tiny", "~callbacks.report", "output_dir=run"]
    subprocess.run([*python, "recon.train", "experiment=pretrain_furniture", *tiny], check=True)
    checkpoint = Path("run/checkpoints/last.ckpt")

# ## Evaluate
#
# The accuracy on 141 test shapes of 26 classes, printed with its protocol.

measure = ["experiment=zeroshot_furniture", f"checkpoint={checkpoint}", "output_dir=zero_shot"]
subprocess.run([*python, "recon.evaluate", *measure], check=True)
results = json.loads(Path("zero_shot/results.json").read_text())
print(results["metrics"]["overall_accuracy"])

# ## The same in Python
#
# The text features of the class names are standardized as in training and compared with the
# projected query of each cloud by cosine.

data = Furniture(["test"])
teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
classes = teacher({"text": list(data.classes)})
encoder = recon.PointEncoder(checkpoint)
queries = encoder.encode([data.points(row) for row in range(5)]).text_projected
similarity = cosine_similarity(queries[:, None], classes[None], dim=-1)
for row, best in enumerate(similarity.argmax(1).tolist()):
    truth = data.classes[data.labels[row]]
    print(f"{data.ids[row]}: {data.classes[best]} (it is {truth})")
assert similarity.shape == (5, 26)

# With a live teacher (`teacher=clip`, weights are downloaded once), classes can be any words: see
# [objects](../objects.md#your-own-shapes).
