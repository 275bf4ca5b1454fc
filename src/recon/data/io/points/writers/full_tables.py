"""Read the points of a file with all their properties, in the file's own place and types."""

from pathlib import Path

import numpy as np

from recon.data.dataset import Cloud
from recon.data.io.file_checks import check_cloud
from recon.data.io.mesh import build_mesh_cloud
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.cloud import drop_invalid_points
from recon.data.io.points.table import DEFAULT_OPTIONS, PointTable, ReadOptions
from recon.data.io.shape import read_content


def read_full_table(
    path: Path, count: int = 8192, options: ReadOptions = DEFAULT_OPTIONS
) -> PointTable:
    """Read the valid points of a file, or sample `count` points from the surfaces of a mesh.

    Raises ValueError or FileNotFoundError that names the file.
    """
    content = read_content(path, options)
    if isinstance(content, PointTable) or (content.points is not None and not content.surfaces):
        return _find_points(content, path, options)
    cloud = build_mesh_cloud(content, count, path, options)
    notes = (*cloud.notes, f"{count:,} points are sampled from its surface")
    return to_table(cloud)._replace(notes=notes)


def find_properties(path: Path, cloud: Cloud, options: ReadOptions = DEFAULT_OPTIONS) -> PointTable:
    """Return the points of a file with all their properties, given the cloud that was read from it.

    From a mesh, it returns the points of the cloud, in the place of the file.
    """
    content = read_content(path, options)
    if isinstance(content, PointTable) or (content.points is not None and not content.surfaces):
        table = _find_points(content, path, options)
        if len(table.points) == len(cloud.points):
            return table
    return to_table(cloud)


def _find_points(content: PointTable | MeshContent, path: Path, options: ReadOptions) -> PointTable:
    """Return the valid points of a file without surfaces."""
    if isinstance(content, PointTable):
        return _drop_checked(content, str(path), options)
    if content.points is None:
        raise ValueError(f"{path}: has no points: export it again")
    table = _drop_checked(content.points, str(path), options)
    return table._replace(
        up=content.up or table.up,
        unit_meters=content.unit_meters or table.unit_meters,
        notes=(*content.notes, *table.notes),
    )


def _drop_checked(table: PointTable, source: str, options: ReadOptions) -> PointTable:
    """Drop invalid points; raise ValueError if invalid ones remain or there are none."""
    table = drop_invalid_points(table, options)
    check_cloud(table.points, source)
    return table


def to_table(cloud: Cloud) -> PointTable:
    """Return the points of a cloud in the place of its file."""
    points: np.ndarray = cloud.points
    if cloud.origin is not None:
        points = points.astype(np.float64) + np.array(cloud.origin)
    return PointTable(
        points, cloud.normals, cloud.colors, up=cloud.up, unit_meters=cloud.unit_meters
    )
