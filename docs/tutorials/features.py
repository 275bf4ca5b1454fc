"""Features of clouds."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import recon

# ## Weights
#
# Any checkpoint, released file or Hub repository works ([list](../weights.md)). Pass yours, such as
# that of the demo, to this page: `python docs/tutorials/features.py <checkpoint>`. Without one, it
# trains a toy network for one step, to run in seconds: its features have the right shapes but no
# meaning.

checkpoint = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
os.chdir(tempfile.mkdtemp())
if checkpoint is None:
    tiny = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report", "output_dir=run"]
    subprocess.run([sys.executable, "-m", "recon.train", *tiny], check=True)
    checkpoint = Path("run/checkpoints/last.ckpt")
encoder = recon.PointEncoder(checkpoint)

# ## One cloud
#
# A cloud needs at least as many points as the network has patches. Its position and scale are
# arbitrary.

rng = np.random.default_rng(0)
cloud = rng.normal(size=(3000, 3))
features = encoder.encode(cloud)
for name, feature in features._asdict().items():
    print(name, None if feature is None else tuple(feature.shape))

# `pooled` is the input of linear probes. `cls`, `image` and `text` are the queries.
# `image_projected` and `text_projected` are the projected queries, in the teachers' spaces.
# `tokens` and `centers` belong to patches.
#
# Features do not depend on position and scale, except for rounding:

moved = encoder.encode(cloud * 20 + 5)
assert np.allclose(features.pooled, moved.pooled, atol=1e-3)

# ## The up axis
#
# Networks are trained on shapes with the up axis y. If the up axis of a file is z, pass `up="z"`:
# the same cloud, rotated as in such a file, gives the same features.

z_up_cloud = np.stack([cloud[:, 0], -cloud[:, 2], cloud[:, 1]], axis=1)
z_up_features = encoder.encode(z_up_cloud, up="z")
assert np.allclose(features.pooled, z_up_features.pooled, atol=1e-3)

# ## Many clouds
#
# Pass a list of clouds of different sizes, or an array of clouds of one size. `stream` takes any
# iterable and keeps one batch in memory.

list_features = encoder.encode([cloud, cloud[:500], cloud[:100]])
print(tuple(list_features.pooled.shape))
assert len(list_features.pooled) == 3

# ## Every point
#
# `dense` returns a feature for each point, in the order of the points.

dense = encoder.dense(cloud)
print(tuple(dense.shape))
assert len(dense) == len(cloud)
