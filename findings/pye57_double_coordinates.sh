#!/usr/bin/env bash
# E57: coordinates in double precision, written and read back with pye57.
#
# Guess: E57 supports double precision, and the arrays are float64 on both sides, so map coordinates
#        are read back to the millimeter.
# Seen:  write_scan_raw stores coordinates in single precision and has no argument to change that. A
#        northing of 5 500 000 m is read back in steps of half a meter, as float64. The bounds in
#        the scan's header keep double precision and no longer fit the points. A local origin passed
#        as translation= avoids it: it is stored in double precision and added on reading.
# Matters: scans in map coordinates fall onto a grid coarser than their point spacing. Neither the
#        dtype nor the header shows it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  pye57==0.4.19 pyquaternion==0.9.9 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import pye57

origin = np.array([500_000.0, 5_500_000.0, 100.0])
local = np.random.default_rng(0).uniform(0, 10, (1000, 3)).round(3)  # a patch of 10 m, in mm
axes = ["cartesianX", "cartesianY", "cartesianZ"]


def round_trip(name, points, **pose):
    with pye57.E57(name, mode="w") as file:
        valid = np.zeros(len(points), np.int8)
        file.write_scan_raw({**dict(zip(axes, points.T)), "cartesianInvalidState": valid}, **pose)
    with pye57.E57(name) as file:
        scan = file.read_scan(0)
        header = file.get_header(0)
        limits = np.array([header.xMaximum, header.yMaximum, header.zMaximum])
    return np.stack([scan[axis] for axis in axes], 1), limits


world = local + origin
direct, limits = round_trip("direct.e57", world)
moved, _ = round_trip("moved.e57", local, translation=origin)
steps = len(np.unique(direct[:, 1]))
error, error_moved = abs(direct - world).max(0), abs(moved - world).max(0)
print("pye57", version("pye57"), "on 1000 points of a 10 m patch at", origin.tolist())
print(f"  dtype in {world.dtype}, out {direct.dtype}")
print(f"  largest error in m: {error.round(4).tolist()}; as translation=: {error_moved.round(4).tolist()}")
print(f"  different northings: {len(np.unique(world[:, 1]))} written, {steps} read")
print(f"  largest northing: header {limits[1]:.3f}, points {direct[:, 1].max():.3f}")
recorded = direct.dtype == np.float64 and error[1] > 0.2 and steps <= 21
recorded = recorded and abs(limits[1] - world[:, 1].max()) < 1e-6 and error_moved.max() < 1e-5
if not recorded:
    sys.exit("changed: coordinates, header or translation= no longer behave as recorded")
print("as recorded: double coordinates are read back in steps of single precision")
PY
