"""Clouds with a label for each point, written as .ply."""

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
    """Write a cloud's points in their order, with the label and the colour of each.

    `source` is the file that the cloud was read from: of a .ply without faces, every property of
    its vertices is kept as it is. Names of the labels stand in the head. The file is there as a
    whole or not at all.
    """
    kept = _vertices(source, len(cloud.points))
    if kept is None:
        kept = _coordinates(cloud)
    fields = [
        (name, kept.dtype[name])
        for name in kept.dtype.names or ()
        if name not in (LABEL_PROPERTY, *COLOR_PROPERTIES)
    ]
    vertex = np.empty(
        len(kept), [*fields, *((c, "u1") for c in COLOR_PROPERTIES), (LABEL_PROPERTY, "i4")]
    )
    for name, _ in fields:
        vertex[name] = kept[name]
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


def _vertices(source: Path, count: int) -> np.ndarray | None:
    """Return a .ply's own vertices, None of another format or a mesh."""
    if source.suffix.lower() != ".ply":
        return None
    ply = PlyData.read(str(source))
    vertex: np.ndarray = ply["vertex"].data
    plain = all(vertex.dtype[name].kind in "iuf" for name in vertex.dtype.names or ())
    faces = "face" in ply and len(ply["face"].data)
    return vertex if plain and not faces and len(vertex) == count else None


def _coordinates(cloud: Cloud) -> np.ndarray:
    """Return a cloud's coordinates as its file has them: shifted back where they were shifted."""
    points: np.ndarray = cloud.points
    if cloud.origin is not None:
        points = points.astype(np.float64) + np.array(cloud.origin)
    table = np.empty(len(points), [(axis, points.dtype) for axis in "xyz"])
    for column, axis in enumerate("xyz"):
        table[axis] = points[:, column]
    return table
