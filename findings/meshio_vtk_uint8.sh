#!/usr/bin/env bash
# VTK: can VTK read the legacy files that meshio writes with values of 8 bits, such as colors?
#
# Guess: yes. meshio's default for .vtk is version 5.1 of VTK's own format, and unsigned bytes are
#        what VTK itself stores colors in.
# Seen:  the type is written as vtktypeuint8. The format names it unsigned_char, and VTK reads
#        nothing of the point data: "Unsupported data type: vtktypeuint8". Bytes with a sign and
#        integers of 16 and 32 bits fail, too; floats and integers of 64 bits are read. meshio
#        itself reads all of them.
# Matters: a file looks right where it was written, and its colors are lost or refused in VTK,
#        PyVista and ParaView. The XML format (.vtu) keeps them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  meshio==5.3.5 vtk==9.7.2 numpy==2.4.6 ||
  { echo "not run: the packages did not install" >&2; exit 2; }
cd "$dir"
"$dir/venv/bin/python" -I - <<'PY'
import sys
from importlib.metadata import version

import meshio
import numpy as np
from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow
from vtkmodules.vtkIOLegacy import vtkDataSetReader

print("meshio", version("meshio"), "vtk", version("vtk"), "numpy", np.__version__)
vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
failed = []
for dtype in ("int8", "uint8", "int16", "uint16", "int32", "int64", "float32", "float64"):
    values = np.arange(3).astype(dtype)
    mesh = meshio.Mesh(points, [("triangle", np.array([[0, 1, 2]]))], point_data={"a": values})
    mesh.write("a.vtk")
    assert meshio.read("a.vtk").point_data["a"].tolist() == [0, 1, 2]
    window = vtkStringOutputWindow()
    vtkOutputWindow.SetInstance(window)
    reader = vtkDataSetReader()
    reader.SetFileName("a.vtk")
    reader.ReadAllFieldsOn()
    reader.Update()
    array = reader.GetOutput().GetPointData().GetArray("a")
    error = window.GetOutput().strip().split("\n")[-1].partition("): ")[2]
    found = None if array is None else [array.GetTuple1(i) for i in range(3)]
    print(f"{dtype:8} VTK reads {found} {error}")
    if array is None:
        failed.append(dtype)
if failed != ["int8", "uint8", "int16", "uint16", "int32"]:
    print("changed: VTK cannot read", failed)
    sys.exit(1)
PY
