"""Build a cloud from the content of a mesh file."""

from pathlib import Path

from recon.data.dataset import Cloud
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.cloud import build_cloud
from recon.data.io.points.table import ReadOptions
from recon.data.io.surface_sampling import sample_surfaces


def build_mesh_cloud(content: MeshContent, count: int, path: Path, options: ReadOptions) -> Cloud:
    """Sample `count` points from the surfaces of a file; without surfaces, return its points.

    Raises ValueError that names the file.
    """
    if content.surfaces:
        cloud = sample_surfaces(content.surfaces, count, str(path), path.name)
    elif content.points is not None:
        cloud = build_cloud(content.points, str(path), options)
    else:
        raise ValueError(f"{path}: contains neither faces nor points: export it again")
    return cloud._replace(
        up=content.up or cloud.up,
        unit_meters=content.unit_meters or cloud.unit_meters,
        notes=(*content.notes, *cloud.notes),
    )
