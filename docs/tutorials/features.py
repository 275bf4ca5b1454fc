"""Features of clouds."""

import os
import subprocess
import sys
import tempfile

import numpy as np

import recon

# ## Weights
#
# Any checkpoint, released file or Hub repository will do ([which](../weights.md)). Here a toy
# network is trained for one step, so that this page runs in seconds: its features are of the
# right shape, and worth nothing.

os.chdir(tempfile.mkdtemp())
tiny = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report", "output_dir=run"]
subprocess.run([sys.executable, "-m", "recon.train", *tiny], check=True)
encoder = recon.PointEncoder("run/checkpoints/last.ckpt")

# ## One cloud
#
# Any number of points from the number of patches on, at any place and scale.

rng = np.random.default_rng(0)
cloud = rng.normal(size=(3000, 3))
features = encoder.encode(cloud)
for name, feature in features._asdict().items():
    print(name, None if feature is None else tuple(feature.shape))

# `pooled` is what linear probes read; `cls`, `image` and `text` are the queries,
# `image_projected` and `text_projected` the same in the teachers' spaces; `tokens` and `centers`
# belong to patches.
#
# Place and scale make no difference but rounding:

moved = encoder.encode(cloud * 20 + 5)
assert np.allclose(features.pooled, moved.pooled, atol=1e-3)

# ## The axis that points upwards
#
# Networks learn from shapes that stand on y. Say so where yours stand on z: the same cloud, lying
# as such a file has it, gives the same features.

standing_on_z = np.stack([cloud[:, 0], -cloud[:, 2], cloud[:, 1]], axis=1)
turned = encoder.encode(standing_on_z, up="z")
assert np.allclose(features.pooled, turned.pooled, atol=1e-3)

# ## Many clouds
#
# A list of clouds of different sizes, or an array of equal ones. `stream` takes any iterable and
# holds one batch.

several = encoder.encode([cloud, cloud[:500], cloud[:40]])
print(tuple(several.pooled.shape))
assert len(several.pooled) == 3

# ## Every point
#
# A feature for each point, in their order.

dense = encoder.dense(cloud)
print(tuple(dense.shape))
assert len(dense) == len(cloud)
