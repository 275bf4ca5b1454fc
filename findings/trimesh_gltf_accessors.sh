#!/usr/bin/env bash
# glTF: does trimesh apply the two accessor properties that change vertex positions?
#
# Guess: trimesh applies both, or refuses the file: "sparse" (in glTF 2.0 itself) replaces single
#        positions of the base array, and "normalized" (KHR_mesh_quantization, declared as required)
#        makes the integer 32767 the position 1.0.
# Seen:  neither is applied. The base array keeps its original positions, and integers are read as
#        meters: an object of 1 m becomes 32767 m. There is no error, warning or log line, although
#        the accessor's "max" contradicts the first and "extensionsRequired" names the second.
#        Khronos' gltf-validator (2.0.0-dev.3.10) accepts both files.
# Matters: the cloud sampled from such a mesh has another shape or scale. quantize() of
#        glTF-Transform 4.5.1 writes normalized positions by default.
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


def load(name, accessor, views, data, **more):
    """The vertices of a glTF of one triangle that has this accessor for its positions."""
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    gltf = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"count": 3, "type": "VEC3", **accessor}],
        "bufferViews": [{"buffer": 0, **view} for view in views],
        "buffers": [{"byteLength": len(data), "uri": uri}], **more,
    }  # fmt: skip
    with open(name, "w") as file:
        json.dump(gltf, file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (mesh,) = trimesh.load_scene(name, process=False).geometry.values()
    heard.extend(caught)
    return mesh.vertices.astype(int).tolist()


base = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
data = base.tobytes() + np.array([2, 0], "<u2").tobytes() + np.array([0, 5, 0], "<f4").tobytes()
views = [{"byteLength": 36, "target": 34962}, {"byteOffset": 36, "byteLength": 2}]
views.append({"byteOffset": 40, "byteLength": 12})
sparse = {"count": 1, "indices": {"bufferView": 1, "componentType": 5123}, "values": {"bufferView": 2}}
accessor = {"bufferView": 0, "componentType": 5126, "min": [0, 0, 0], "max": [1, 5, 0], "sparse": sparse}
replaced = load("sparse.gltf", accessor, views, data)

data = np.array([[0, 0, 0, 0], [32767, 0, 0, 0], [0, 32767, 0, 0]], "<i2").tobytes()  # 4th: padding
views = [{"byteLength": 24, "byteStride": 8, "target": 34962}]
accessor = {"bufferView": 0, "componentType": 5122, "normalized": True, "min": [0, 0, 0]}
accessor["max"] = [32767, 32767, 0]
needs = ["KHR_mesh_quantization"]
more = {"extensionsUsed": needs, "extensionsRequired": needs}
scaled = load("normalized.gltf", accessor, views, data, **more)

print("trimesh", version("trimesh"))
print(f"  sparse:     {replaced}, by the specification [0, 5, 0] comes last")
print(f"  normalized: {scaled}, by the specification 1 in place of 32767")
print(f"  warnings and log lines: {len(heard)}")
if replaced != base.tolist():
    sys.exit("changed: sparse positions are no longer ignored")
if scaled != (base * 32767).tolist():
    sys.exit("changed: normalized positions are no longer read as integers")
if heard:
    sys.exit("changed: trimesh now warns about such a file")
print("as recorded: trimesh ignores both without a warning")
PY
