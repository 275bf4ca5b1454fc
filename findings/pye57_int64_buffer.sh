#!/usr/bin/env bash
# E57: integer fields read into numpy's default integer type through pye57's buffers.
#
# Guess: SourceDestBuffer lists "l" and "q" among its types, and both are 64-bit integers on Linux, so
#        an np.int64 array is filled with the values of the field.
# Seen:  an array of np.int64 has numpy's code "l", which the binding takes for 32 bits. It fills the
#        first half of the memory with pairs of packed 32-bit values and leaves the rest. Nothing is
#        raised, and the number of records that the reader returns is right. np.longlong, code "q",
#        has the same size, compares equal to np.int64, and works.
# Matters: columns such as rowIndex are wrong without a sign of it, and the two types cannot be told
#          apart by comparing them.
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
from pye57 import libe57

count = 8
rows = np.arange(1, count + 1)
scan = {f"cartesian{axis}": np.zeros(count) for axis in "XYZ"}
with pye57.E57("a.e57", mode="w") as file:
    file.write_scan_raw({**scan, "rowIndex": rows, "columnIndex": rows})


def read(dtype):
    values = np.zeros(count, dtype)
    with pye57.E57("a.e57") as file:
        buffers = libe57.VectorSourceDestBuffer()
        buffers.append(libe57.SourceDestBuffer(file.image_file, "rowIndex", values, count, True, True))
        length = file.get_header(0).points.reader(buffers).read()
    return values, length


print("pye57", version("pye57"), "on", sys.platform, "; written:", rows.tolist())
print("  np.int64 == np.longlong:", np.dtype(np.int64) == np.dtype(np.longlong))
seen = {}
for dtype in (np.int64, np.longlong):
    seen[dtype], length = read(dtype)
    print(f"  {np.dtype(dtype).char}: {length} records, {seen[dtype].tolist()}")
halves = seen[np.int64].view(np.int32)[:count].tolist()
recorded = halves == rows.tolist() and not seen[np.int64][count // 2 :].any()
recorded = recorded and seen[np.longlong].tolist() == rows.tolist()
if not recorded:
    sys.exit("changed: an array of np.int64 is no longer filled as one of 32-bit integers")
print("as recorded: np.int64 arrays are filled as if they held 32-bit integers")
PY
