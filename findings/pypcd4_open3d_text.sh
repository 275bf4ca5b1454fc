#!/usr/bin/env bash
# PCD: text files as Open3D writes them, read by pypcd4.
#
# Guess: numbers of a text .pcd are separated by white space, so a space at the end of a line, which
#        Open3D writes on each, and several spaces or tabs between numbers are read like one space.
# Seen:  lines are split at each single space: a space at the end counts as another, empty column, and
#        the file is refused with an error about the number of columns. Binary files of the same
#        points are read.
# Matters: whether two programs can exchange clouds depends on the encoding, and the error points to
#          the fields of the header, which are right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pypcd4==1.5.1 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pypcd4

header = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\n"
    "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA {}\n"
)
bodies = {
    "single spaces": b"1 2 3\n4 5 6\n",
    "a space at the end": b"1 2 3 \n4 5 6 \n",
    "a tab": b"1 2\t3\n4 5\t6\n",
    "two spaces": b"1 2  3\n4 5  6\n",
}
seen = {}
print("pypcd4", version("pypcd4"))
for name, body in bodies.items():
    Path("a.pcd").write_bytes(header.format("ascii").encode() + body)
    try:
        seen[name] = pypcd4.PointCloud.from_path("a.pcd").numpy().tolist()
    except ValueError as error:
        seen[name] = f"refused: {error}"
    print(f"  {name}: {seen[name]}")
Path("a.pcd").write_bytes(header.format("binary").encode() + np.arange(1, 7, dtype="<f4").tobytes())
binary = pypcd4.PointCloud.from_path("a.pcd").numpy().tolist()
print(f"  binary: {binary}")
points = [[1, 2, 3], [4, 5, 6]]
recorded = binary == points == seen["single spaces"]
recorded = recorded and str(seen["a space at the end"]).startswith("refused")
if not recorded:
    sys.exit("changed: spaces at the end of lines are no longer refused")
print("as recorded: a space at the end of a line is refused")
PY
