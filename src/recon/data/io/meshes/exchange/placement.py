"""Place parts of a scene by matrices, and join those of one material."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.surface import Surface

MAX_TRIANGLES = 2**24
"""Maximum number of triangles of a file, with all instances of its parts."""
MAX_DEPTH = 256
"""Maximum depth of the nodes of a scene."""


def place_surface(surface: Surface, matrix: Float[np.ndarray, "4 4"]) -> Surface:
    """Apply a matrix for column vectors; a mirrored surface keeps its outer side."""
    faces, texture, vertices = surface.faces, surface.texture, surface.vertices
    if not np.array_equal(matrix, np.eye(4)):
        vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces = faces[:, ::-1]
        texture = None if texture is None else texture._replace(uv=texture.uv[:, ::-1])
    return surface._replace(vertices=vertices, faces=faces, texture=texture)


def check_num_triangles(count: int) -> None:
    """Raise ValueError for a number of triangles, with all instances, above `MAX_TRIANGLES`."""
    if count > MAX_TRIANGLES:
        raise UnsupportedContentError(
            f"its parts repeat to {count:,} triangles, the maximum is {MAX_TRIANGLES:,}: reduce "
            "them"
        )


def join_surfaces(surfaces: Iterable[Surface]) -> list[Surface]:
    """Join surfaces whose colors come from the same material, in order of first appearance."""
    groups: dict[tuple[object, ...], list[Surface]] = {}
    for surface in surfaces:
        if len(surface.faces):
            groups.setdefault(_material_key(surface), []).append(surface)
    return [_concatenate(group) for group in groups.values()]


def _material_key(surface: Surface) -> tuple[object, ...]:
    texture, base = surface.texture, surface.base_color
    return (
        None if texture is None else (id(texture.pixels), texture.wrap, texture.is_nearest),
        None if base is None else tuple(base.tolist()),
        None if surface.vertex_colors is None else surface.vertex_colors.dtype.str,
        None if surface.face_colors is None else surface.face_colors.dtype.str,
        surface.is_multiplied,
    )


def _concatenate(group: Sequence[Surface]) -> Surface:
    first = group[0]
    if len(group) == 1:
        return first
    offsets = np.cumsum([0] + [len(surface.vertices) for surface in group[:-1]])
    texture = first.texture
    if texture is not None:
        uv = [surface.texture.uv for surface in group if surface.texture is not None]
        texture = texture._replace(uv=np.concatenate(uv))
    vertex_colors = [s.vertex_colors for s in group if s.vertex_colors is not None]
    face_colors = [s.face_colors for s in group if s.face_colors is not None]
    return first._replace(
        vertices=np.concatenate([surface.vertices for surface in group]),
        faces=np.concatenate([s.faces + n for s, n in zip(group, offsets, strict=True)]),
        vertex_colors=np.concatenate(vertex_colors) if vertex_colors else None,
        face_colors=np.concatenate(face_colors) if face_colors else None,
        texture=texture,
    )
