#!/usr/bin/env bash
# LAS: does laspy.convert keep the scan angle when it changes the point format?
#
# Guess: yes. Formats 0-5 store it in whole degrees (scan_angle_rank), formats 6-10 in steps of
#        0.006 degrees (scan_angle): 15 degrees become 2500, and 15 again on the way back. A field
#        that cannot be converted gives an error or a warning.
# Seen:  all other fields are converted, also flags that move to other bits. Every angle becomes 0,
#        in both directions, without an error, a warning or a log line. laspy.lost_dimensions names
#        the field when it is called beforehand.
# Matters: 0 is a valid angle (straight down). The file does not show that the channel was lost.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  laspy==2.7.0 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import logging
import sys
import warnings
from importlib.metadata import version

import laspy
import numpy as np

heard = []
handler = logging.Handler()
handler.emit = heard.append
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.DEBUG)
warnings.simplefilter("always")


def scan(point_format, las_version, **fields):
    las = laspy.LasData(laspy.LasHeader(point_format=point_format, version=las_version))
    las.x = las.y = las.z = np.array([1.0, 2.0, 3.0])
    las.return_number = las.number_of_returns = [1, 1, 1]
    las.classification, las.withheld, las.edge_of_flight_line = [2, 5, 6], [0, 1, 0], [1, 0, 1]
    for name, values in fields.items():
        las[name] = values
    las.write("in.las")
    return laspy.read("in.las")


def converted(las, point_format):
    with warnings.catch_warnings(record=True) as caught:
        laspy.convert(las, point_format_id=point_format).write("out.las")
    heard.extend(caught)
    return laspy.read("out.las")


print("laspy", version("laspy"))
others = ["X", "classification", "withheld", "edge_of_flight_line"]
same, angles = True, []
for source, source_version, name, values, target, other in (
    (1, "1.2", "scan_angle_rank", [-15, 3, 15], 6, "scan_angle"),
    (6, "1.4", "scan_angle", [-2500, 500, 2500], 1, "scan_angle_rank"),
):
    before = scan(source, source_version, **{name: values})
    after = converted(before, target)
    same &= all(np.array_equal(np.array(before[n]), np.array(after[n])) for n in others)
    angles += np.array(after[other]).tolist()
    print(f"  format {source} -> {target}: {name} {np.array(before[name]).tolist()}", end="")
    print(f" -> {other} {np.array(after[other]).tolist()}")
    print(f"    lost_dimensions: {sorted(laspy.lost_dimensions(source, target))}")
print(f"  {', '.join(others)} kept: {same}; warnings and log lines: {len(heard)}")
if angles != [0] * 6 or not same or heard:
    sys.exit("changed: convert carries the scan angle, loses more, or says so")
print("as recorded: the scan angle is 0 after convert, and nothing says so")
PY
