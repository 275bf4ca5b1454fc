"""Sample points, normals and colors uniformly by area from the surfaces of meshes."""

import zlib
from collections.abc import Sequence

import numpy as np
from trimesh import Trimesh
from trimesh.sample import sample_surface

from recon.data.dataset import Cloud
from recon.data.io.file_checks import check_cloud
from recon.data.io.meshes.colors import interpolate_colors
from recon.data.io.meshes.surface import Surface, select_faces
from recon.data.io.points.cloud import make_cloud


def sample_surfaces(surfaces: Sequence[Surface], count: int, source: str, name: str) -> Cloud:
    """Sample `count` points uniformly by area from all surfaces, seeded by the file's `name`.

    Colors are kept if all sampled surfaces have some; a note tells if only a part has. Raises
    ValueError that names `source` for invalid faces or surfaces without an area.
    """
    surfaces = [_drop_unused(surface) for surface in surfaces]
    meshes = [Trimesh(s.vertices, s.faces, process=False) for s in surfaces]
    for mesh in meshes:
        check_cloud(np.asarray(mesh.vertices), source)
        if int(np.min(mesh.faces)) < 0 or int(np.max(mesh.faces)) >= len(mesh.vertices):
            raise ValueError(
                f"{source}: a face uses a vertex index outside its {len(mesh.vertices)} vertices: "
                "export it again"
            )
    areas = np.array([mesh.area for mesh in meshes])
    if not np.isfinite(areas).all() or areas.sum() <= 0:
        raise ValueError(f"{source}: its faces have no area to sample points from: export it again")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    counts = rng.multinomial(count, areas / areas.sum())
    points, normals, colors = [], [], []
    for surface, mesh, number in zip(surfaces, meshes, counts, strict=True):
        if number:
            sampled, faces, weights = sample_surface(
                mesh, int(number), seed=rng, return_barycentric=True
            )
            points.append(sampled)
            normals.append(mesh.face_normals[faces])
            colors.append(interpolate_colors(surface, faces, weights))
    present = [color for color in colors if color is not None]
    all_colors = np.concatenate(present) if len(present) == len(colors) else None
    cloud = make_cloud(np.concatenate(points), source, np.concatenate(normals), all_colors)
    if present and all_colors is None:
        note = f"{len(present)} of {len(colors)} surfaces have colors: none are used"
        cloud = cloud._replace(notes=(*cloud.notes, note))
    return cloud


def _drop_unused(surface: Surface) -> Surface:
    """Drop vertices that no face uses where some are NaN or infinite, as in organized scans."""
    faces, num_vertices = surface.faces, len(surface.vertices)
    is_valid = int(faces.min()) >= 0 and int(faces.max()) < num_vertices
    if np.isfinite(surface.vertices).all() or not is_valid:
        return surface
    return select_faces(surface, np.arange(len(faces)))
