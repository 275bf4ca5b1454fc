"""Write clouds with a label and a color for each point."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from plyfile import PlyData, PlyElement

from recon.data.dataset import Cloud
from recon.data.io.points.table import DEFAULT_OPTIONS, ReadOptions
from recon.data.io.points.writers.formats import write_points
from recon.data.io.points.writers.full_tables import find_properties

LABEL_PROPERTY, COLOR_PROPERTIES = "label", ("red", "green", "blue")


def write_labeled_points(
    path: Path,
    source: Path,
    cloud: Cloud,
    labels: Int[np.ndarray, " n"],
    colors: UInt8[np.ndarray, "n 3"],
    class_names: Sequence[str],
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Sequence[str]:
    """Write a cloud's points in their order, each with its label and color; return what changed.

    `source` is the file that the cloud was read from with `options`: all other properties of its
    points are kept, as far as the format of `path` can hold them. The file names the labels: in
    comments of .ply and .pcd files, in the header of .las and .laz files, in `names` of others. The
    file is written atomically.
    """
    vertex = _read_vertices(source, len(cloud.points)) if path.suffix.lower() == ".ply" else None
    if vertex is not None:
        _write_labeled_vertices(path, vertex, labels, colors, class_names)
        return ()
    table = find_properties(source, cloud, options)
    extra = {name: values for name, values in table.extra.items() if name != LABEL_PROPERTY}
    label = {LABEL_PROPERTY: labels.astype(np.int32)}
    # The first of the properties takes the dimension of classes in .las files.
    extra = {**label, **extra} if path.suffix.lower() in (".las", ".laz") else {**extra, **label}
    return write_points(
        path, table._replace(colors=colors, extra=extra), dict(enumerate(class_names))
    )


def _write_labeled_vertices(
    path: Path,
    original: np.ndarray,
    labels: Int[np.ndarray, " n"],
    colors: UInt8[np.ndarray, "n 3"],
    class_names: Sequence[str],
) -> None:
    """Write the vertices of a .ply file with labels and colors."""
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
