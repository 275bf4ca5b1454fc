"""Read .vtk, .vtp and .vtu files with VTK: polygons, the surfaces of grids, or points."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from recon.data.io.file_checks import (
    MAX_UNPACK_RATIO,
    UnsupportedContentError,
    check_file,
    wrap_read_errors,
)
from recon.data.io.meshes.exchange.strips import split_strips
from recon.data.io.meshes.surface import MeshContent, Surface
from recon.data.io.meshes.triangulation import check_indices, triangulate
from recon.data.io.points.table import PointTable, ReadOptions

MAX_VTK_BYTES = 2**30
"""Maximum size of a file, in bytes."""
DATASETS = ("POLYDATA", "UNSTRUCTURED_GRID", "STRUCTURED_GRID", "RECTILINEAR_GRID")
"""Kinds of legacy files that have surfaces."""
LEGACY_COUNT = re.compile(
    rb"^(?:POINTS|CELLS|CELL_TYPES|POLYGONS|VERTICES|LINES|TRIANGLE_STRIPS|POINT_DATA|CELL_DATA|"
    rb"LOOKUP_TABLE[ \t]+\w+|METADATA|OFFSETS|CONNECTIVITY|DIMENSIONS|\w+[ \t]+\d+)"
    rb"((?:[ \t]+\d+)+)",
    re.MULTILINE | re.IGNORECASE,
)
"""Lines of legacy files that declare numbers of values."""
TYPE_NAME = re.compile(rb"(?<=[ \t])vtktype(u?)int(8|16|32)(?=\s)")
"""Types of values in files of meshio that VTK does not know."""
TYPE_NAMES = {b"8": b"char", b"16": b"short", b"32": b"int"}
XML_COUNT = re.compile(rb"\bNumberOf(?:\w+)[ \t\r\n]*=[ \t\r\n]*[\"'][ \t]*(\d+)")
COLOR_NAME = re.compile("colou?r|rgb", re.IGNORECASE)


def read_vtk(path: Path, options: ReadOptions) -> MeshContent:
    """Read the polygons of a file, or the outer surface of its grid, with colors of their points.

    Without faces, its points with normals, colors and other scalars are read. Raises ValueError
    that names the file.
    """
    check_file(path, MAX_VTK_BYTES)
    suffix = path.suffix.lower()
    try:
        import vtkmodules.vtkIOLegacy
        import vtkmodules.vtkIOXML
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading {suffix} files needs VTK: pip install 'recon-pointcloud[vtk]'"
        ) from error
    with wrap_read_errors(path, "VTK file"), _capture_errors():
        if suffix == ".vtk":
            content = check_legacy(path)
            reader = vtkmodules.vtkIOLegacy.vtkDataSetReader()
            if (known := TYPE_NAME.sub(_rename_type, content)) != content:
                reader.ReadFromInputStringOn()
                reader.SetBinaryInputString(known, len(known))
            for kind in ("Scalars", "Normals", "ColorScalars", "Fields", "Vectors"):
                getattr(reader, f"ReadAll{kind}On")()
        else:
            check_xml(path)
            module = vtkmodules.vtkIOXML
            is_poly = suffix == ".vtp"
            reader = (
                module.vtkXMLPolyDataReader() if is_poly else module.vtkXMLUnstructuredGridReader()
            )
        reader.SetFileName(str(path))
        reader.Update()
        return _convert(_extract_surface(reader.GetOutput()))


@contextmanager
def _capture_errors() -> Iterator[None]:
    """Keep VTK's messages from the console, and raise ValueError for its errors."""
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    window, previous = vtkStringOutputWindow(), vtkOutputWindow.GetInstance()
    vtkOutputWindow.SetInstance(window)
    try:
        yield
        text = window.GetOutput()
    finally:
        vtkOutputWindow.SetInstance(previous)
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_INFO)
    if "ERROR:" in text:
        message = text.partition("ERROR:")[2].partition("): ")[2] or "VTK cannot read it"
        raise ValueError(message.strip().partition("\n")[0])


def _rename_type(match: re.Match[bytes]) -> bytes:
    """Return the name that VTK knows of a type that meshio names by its bits."""
    return (b"unsigned_" if match[1] else b"") + TYPE_NAMES[match[2]]


def check_legacy(path: Path) -> bytes:
    """Return the content of a legacy file.

    Raises ValueError if it declares more values than it has bytes.
    """
    content = path.read_bytes()
    if not content.startswith(b"# vtk DataFile"):
        raise ValueError("it has no header of VTK")
    kind = re.search(rb"^DATASET[ \t]+(\w+)", content, re.MULTILINE | re.IGNORECASE)
    name = "" if kind is None else kind[1].decode().upper()
    if name not in DATASETS:
        raise UnsupportedContentError(
            f"it holds data of the kind {name or 'FIELD'!r}, which has no surface: extract one, "
            "for example a contour, and save it as POLYDATA"
        )
    for match in LEGACY_COUNT.finditer(content):
        words = match[1].split()
        total = int(np.prod([int(word) for word in words], dtype=object))
        values = total if match[0].upper().startswith(b"DIMENSIONS") else max(map(int, words))
        if values > len(content) and re.match(rb"[A-Za-z_]+\b", match[0]):
            line = match[0][:60].decode("latin1")
            raise ValueError(f"its header declares {line!r}, it has {len(content)} bytes")
    return content


def check_xml(path: Path) -> None:
    """Raise ValueError for an XML file that declares more values than its size allows."""
    content = path.read_bytes()
    head = content.partition(b"<AppendedData")[0]
    if b"<VTKFile" not in head[:4096]:
        raise ValueError("it has no header of VTK")
    if b"<!ENTITY" in head:
        raise UnsupportedContentError("its XML declares entities: export it without")
    count = max((int(match) for match in XML_COUNT.findall(head)), default=0)
    if count > MAX_UNPACK_RATIO * len(content):
        raise ValueError(f"its header declares {count} values, it has {len(content)} bytes")


def _extract_surface(data: Any) -> Any:
    """Return polygons as they are, and the outer surface of a grid; its points if it has none."""
    from vtkmodules.vtkFiltersGeometry import vtkDataSetSurfaceFilter

    if data is None:
        raise ValueError("VTK finds no data in it")
    if data.IsA("vtkPolyData"):
        return data
    filter_ = vtkDataSetSurfaceFilter()
    filter_.SetInputData(data)
    filter_.Update()
    surface = filter_.GetOutput()
    has_faces = surface.GetNumberOfPolys() + surface.GetNumberOfStrips()
    return surface if has_faces or data.GetNumberOfPoints() == 0 else data


def _convert(data: Any) -> MeshContent:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    if data.GetPoints() is None or not data.GetNumberOfPoints():
        return MeshContent()
    points = vtk_to_numpy(data.GetPoints().GetData()).reshape(-1, 3)
    colors = _find_colors(data.GetPointData())
    if not data.IsA("vtkPolyData") or not data.GetNumberOfPolys() + data.GetNumberOfStrips():
        return MeshContent(points=_read_points(data.GetPointData(), points, colors))
    polygons, sizes = _read_cells(data.GetPolys())
    strips, lengths = _read_cells(data.GetStrips())
    check_indices(polygons, len(points))
    check_indices(strips, len(points))
    places, owners = triangulate(points, polygons, sizes)
    strip_places, strip_owners = split_strips(lengths)
    faces = np.concatenate([polygons[places], strips[strip_places]])
    surface = Surface(points.astype(np.float64), faces, vertex_colors=colors)
    face_colors = _find_colors(data.GetCellData())
    if colors is None and face_colors is not None:
        first = data.GetNumberOfVerts() + data.GetNumberOfLines()
        rows = first + np.concatenate([owners, len(sizes) + strip_owners])
        surface = surface._replace(face_colors=face_colors[rows])
    notes = () if not data.GetNumberOfLines() else ("lines are not read: left out",)
    return MeshContent([surface], notes=notes)


def _read_cells(cells: Any) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " p"]]:
    """Return the vertices of all cells, and the number of each."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    if not cells.GetNumberOfCells():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    offsets = vtk_to_numpy(cells.GetOffsetsArray()).astype(np.int64)
    return vtk_to_numpy(cells.GetConnectivityArray()).astype(np.int64), np.diff(offsets)


def _find_colors(attributes: Any) -> Num[np.ndarray, "n 3"] | None:
    """Return RGB by the name of an array, or the active scalars if they are bytes."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    active = attributes.GetScalars()
    arrays = [attributes.GetArray(i) for i in range(attributes.GetNumberOfArrays())]
    for array in sorted((a for a in arrays if a is not None), key=lambda a: a is not active):
        name = array.GetName() or ""
        if array.GetNumberOfComponents() not in (3, 4) or not array.GetNumberOfTuples():
            continue
        values = vtk_to_numpy(array)[:, :3]
        if values.dtype == np.uint8 and (array is active or COLOR_NAME.search(name)):
            return values
        if values.dtype.kind == "f" and COLOR_NAME.search(name) and values.min() >= 0:
            if values.max() <= 1:
                return values.astype(np.float64)
            if values.max() <= 255:
                return values / 255.0
    return None


def _read_points(
    attributes: Any,
    points: Num[np.ndarray, "n 3"],
    colors: Num[np.ndarray, "n 3"] | None,
) -> PointTable:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    arrays = [attributes.GetArray(i) for i in range(attributes.GetNumberOfArrays())]
    extra = {
        array.GetName() or "scalars": vtk_to_numpy(array).copy()
        for array in arrays
        if array is not None and array.GetNumberOfComponents() == 1
    }
    normals = attributes.GetNormals()
    return PointTable(
        points.copy(), None if normals is None else vtk_to_numpy(normals).copy(), colors, extra
    )
