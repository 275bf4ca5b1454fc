"""Write clouds with a label and a color for each point as .ply files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from plyfile import PlyData, PlyElement

from recon.data.dataset import Cloud

LABEL_PROPERTY, COLOR_PROPERTIES = "label", ("red", "green", "blue")


def write_labeled_ply(
    path: Path,
    source: Path,
    cloud: Cloud,
    labels: Int[np.ndarray, " n"],
    colors: UInt8[np.ndarray, "n 3"],
    class_names: Sequence[str],
) -> None:
    """Write a cloud's points in their order, each with its label and color.

    `source` is the file that the cloud was read from: for a .ply without faces, all other
    properties of its vertices are kept. Comments in the header name the labels. The file is
    written atomically.
    """
    original = _read_vertices(source, len(cloud.points))
    if original is None:
        original = _build_vertices(cloud)
    fields = [
        (name, original.dtype[name])
        for name in original.dtype.names or ()
        if name not in (LABEL_PROPERTY, *COLOR_PROPERTIES)
    ]
    vertex = np.empty(
        len(original), [*fields, *((c, "u1") for c in COLOR_PROPERTIES), (LABEL_PROPERTY, "i4")]
    )
    for name, _ in fields:
        vertex[name] = original[name]
    for column, name in enumerate(COLOR_PROPERTIES):
        vertex[name] = colors[:, column]
    vertex[LABEL_PROPERTY] = labels
    comments = [f"label {number} {name}" for number, name in enumerate(class_names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        PlyData([PlyElement.describe(vertex, "vertex")], comments=comments).write(str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_vertices(source: Path, count: int) -> np.ndarray | None:
    """Return the vertices of a .ply file; None for other formats, meshes and list properties."""
    if source.suffix.lower() != ".ply":
        return None
    ply = PlyData.read(str(source))
    vertex: np.ndarray = ply["vertex"].data
    has_numbers_only = all(vertex.dtype[name].kind in "iuf" for name in vertex.dtype.names or ())
    has_faces = "face" in ply and len(ply["face"].data)
    return vertex if has_numbers_only and not has_faces and len(vertex) == count else None


def _build_vertices(cloud: Cloud) -> np.ndarray:
    """Return a cloud's points in the coordinates of its file, as fields x, y and z."""
    points: np.ndarray = cloud.points
    if cloud.origin is not None:
        points = points.astype(np.float64) + np.array(cloud.origin)
    table = np.empty(len(points), [(axis, points.dtype) for axis in "xyz"])
    for column, axis in enumerate("xyz"):
        table[axis] = points[:, column]
    return table
