#!/usr/bin/env bash
# OBJ: does trimesh resolve negative vertex indices at the place of the face?
#
# Guess: -1 is the last vertex before the face, as the format's specification says, also where
#        further vertices follow after the face.
# Seen:  -1 is the last vertex of the whole file. In a file that writes each object as its vertices
#        followed by its faces, the faces of all objects use the vertices of the last one. There is
#        no error or warning.
# Matters: the Cornell box of Embree is such a file: its area is 1 182 338 instead of 1 989 605, and
#        parts of the room are missing. Programs that export objects one after another write such files.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  trimesh==5.2.0 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import sys
import warnings
from importlib.metadata import version

import trimesh

SQUARE = "v 0 0 {z}\nv 1 0 {z}\nv 1 1 {z}\nv 0 1 {z}\nf -4 -3 -2\nf -4 -2 -1\n"
with open("two.obj", "w") as file:
    file.write("o low\n" + SQUARE.format(z=0) + "o high\n" + SQUARE.format(z=5))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    mesh = trimesh.load_scene("two.obj", process=False).to_mesh()
heights = sorted(set(mesh.triangles[:, :, 2].ravel().tolist()))
print("trimesh", version("trimesh"))
print(f"  heights of the vertices of faces: {heights}, by the specification [0.0, 5.0]")
print(f"  warnings: {len(caught)}")
if heights != [5.0]:
    sys.exit("changed: indices are no longer relative to the end of the file")
if caught:
    sys.exit("changed: trimesh now warns about such a file")
print("as recorded: all faces use the vertices of the last object, without a warning")
PY
