"""Content of mesh files: triangles, and what their colors are computed from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from recon.data.io.points.table import PointTable

MAX_MESH_BYTES = 2**30
"""Maximum size of a mesh file, in bytes."""


class Texture(NamedTuple):
    """An image mapped onto triangles."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """sRGB, the first row at the top."""
    uv: Float[np.ndarray, "f 3 2"]
    """Place of each corner in the image, which covers [0, 1]; (0, 0) is its upper left corner."""
    wrap: tuple[str, str] = ("repeat", "repeat")
    """What follows outside [0, 1], across and down: `repeat`, `mirror` or `clamp`."""
    is_nearest: bool = False
    """Whether to take the nearest pixel instead of interpolating four."""


class Surface(NamedTuple):
    """Triangles with one material."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    vertex_colors: Num[np.ndarray, "v 3"] | None = None
    """RGB, uint8 in [0, 255] or fractions in [0, 1]; sRGB, as all colors here."""
    face_colors: Num[np.ndarray, "f 3"] | None = None
    texture: Texture | None = None
    base_color: Float[np.ndarray, " 3"] | None = None
    """Color of the material, fractions in [0, 1]."""
    is_multiplied: bool = False
    """Whether vertex colors and a texture multiply each other, as in glTF."""


def select_faces(surface: Surface, rows: Int[np.ndarray, " n"]) -> Surface:
    """Return the selected triangles with the vertices that they use."""
    used, faces = np.unique(surface.faces[rows], return_inverse=True)
    vertex_colors, face_colors = surface.vertex_colors, surface.face_colors
    texture = surface.texture
    return surface._replace(
        vertices=surface.vertices[used],
        faces=faces.reshape(-1, 3),
        vertex_colors=None if vertex_colors is None else vertex_colors[used],
        face_colors=None if face_colors is None else face_colors[rows],
        texture=None if texture is None else texture._replace(uv=texture.uv[rows]),
    )


class MeshContent(NamedTuple):
    """Surfaces and points of one file, in its own units and axes."""

    surfaces: Sequence[Surface] = ()
    points: PointTable | None = None
    """The points of a file without faces."""
    up: str | None = None
    unit_meters: float | None = None
    notes: tuple[str, ...] = ()
