#!/usr/bin/env bash
# glTF: where does trimesh place a mesh that a skin moves?
#
# Guess: by the joints alone, as glTF 2.0 demands (section 3.7.3.3): the transform of the node that
#        has the mesh does not count.
# Seen:  the joints are not read, and the transform of the mesh's node is applied. There is no error,
#        warning or log line. A unit square whose node has the scale 100, and whose only joint is 5 m
#        away, becomes 100 m wide at the origin instead of 1 m wide at 5 m.
# Matters: exporters of characters often keep a scale of 0.01 or 100 in the node that holds the mesh.
#        Its size is then wrong by that factor, beside other meshes of the same scene.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  trimesh==5.2.0 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import base64
import json
import logging
import sys
import warnings
from importlib.metadata import version

import numpy as np
import trimesh

heard = []
handler = logging.Handler()
handler.emit = heard.append
logging.getLogger("trimesh").addHandler(handler)
logging.getLogger("trimesh").setLevel(logging.WARNING)

square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
corners = np.array([0, 1, 2, 0, 2, 3], "<u2")
joints = np.zeros((4, 4), "u1")
weights = np.tile(np.array([1, 0, 0, 0], "<f4"), (4, 1))
blocks = [square.tobytes(), corners.tobytes(), joints.tobytes(), weights.tobytes()]
views, data = [], b""
for block in blocks:  # each has a multiple of four bytes
    views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(block)})
    data += block
kinds = [("VEC3", 5126, 4), ("SCALAR", 5123, 6), ("VEC4", 5121, 4), ("VEC4", 5126, 4)]
accessors = [
    {"bufferView": i, "type": kind, "componentType": number, "count": count}
    for i, (kind, number, count) in enumerate(kinds)
]
accessors[0] |= {"min": [0, 0, 0], "max": [1, 1, 0]}
uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
attributes = {"POSITION": 0, "JOINTS_0": 2, "WEIGHTS_0": 3}
gltf = {
    "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0, 1]}],
    "nodes": [{"mesh": 0, "skin": 0, "scale": [100, 100, 100]}, {"translation": [5, 0, 0]}],
    "skins": [{"joints": [1]}],  # without matrices, the joint's transform is the vertices' one
    "meshes": [{"primitives": [{"attributes": attributes, "indices": 1}]}],
    "accessors": accessors, "bufferViews": views,
    "buffers": [{"byteLength": len(data), "uri": uri}],
}  # fmt: skip
with open("skin.gltf", "w") as file:
    json.dump(gltf, file)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    bounds = trimesh.load_scene("skin.gltf", process=False).bounds.round(3).tolist()
heard.extend(caught)

print("trimesh", version("trimesh"))
print(f"  bounds: {bounds}, by the specification [[5, 0, 0], [6, 1, 0]]")
print(f"  warnings and log lines: {len(heard)}")
if bounds != [[0, 0, 0], [100, 100, 0]]:
    sys.exit("changed: the skin is no longer placed by its node")
if heard:
    sys.exit("changed: trimesh now warns about such a file")
print("as recorded: trimesh places the skin by its node, without a warning")
PY
