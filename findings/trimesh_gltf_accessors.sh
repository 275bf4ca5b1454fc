#!/usr/bin/env bash
# glTF: two properties of an accessor that decide what a vertex position is.
#
# Guess: trimesh applies both, or refuses the file: "sparse" (in glTF 2.0 itself) replaces single
#        positions of the base array, and "normalized" (KHR_mesh_quantization, declared as required)
#        makes the integer 32767 the position 1.0.
# Seen:  neither is read. The base array comes without its replaced positions, and the integers come
#        as metres: an object of 1 m is 32767 m. No error, warning or log line either way, though
#        the accessor's own "max" contradicts the first and "extensionsRequired" names the second.
#        Khronos' gltf-validator (2.0.0-dev.3.10) has nothing against either file.
# Matters: the cloud sampled from such a mesh has another shape, or dwarfs the rest of its scene.
#        Normalized positions are what quantize() of glTF-Transform 4.5.1 writes by itself.
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
    sys.exit("changed: sparse positions are no longer passed over")
if scaled != (base * 32767).tolist():
    sys.exit("changed: normalized positions are no longer taken as they are stored")
if heard:
    sys.exit("changed: trimesh now says something about such a file")
print("as recorded: trimesh passes over both, without a word")
PY
