"""Textures of .ply files: image files named in comments, and places at vertices or faces."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.ply_elements import Columns, PlyList, find_columns
from recon.data.io.meshes.surface import MeshContent, Surface, Texture, select_faces
from recon.data.io.meshes.textures import TextureLoader

TEXTURE_NAMES = (
    ("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"),
    ("texcoord_u", "texcoord_v"), ("s0", "t0"), ("u0", "v0"),
)  # fmt: skip
"""Names of the place in the image, at vertices."""
PLACE_LISTS = ("texcoord", "texture_uv")
"""Names of the list of places, two numbers for each corner of a face."""
NUMBER_NAMES = ("texnumber", "texture_number")
"""Names of the number of a face's image."""
MAX_TEXTURES = 2**10
"""Maximum number of texture files."""


def read_texture_places(
    elements: Mapping[str, Columns],
    corners: Int[np.ndarray, " c"],
    sizes: Int[np.ndarray, " p"],
    triangles: Int[np.ndarray, "t 3"],
    owners: Int[np.ndarray, " t"],
) -> Float[np.ndarray, "t 3 2"]:
    """Return the place of each triangle's corners in its image, NaN where it has none.

    v points up. `triangles` are places in `corners`, and `owners` their polygons.
    """
    lists = [elements["face"][name] for name in PLACE_LISTS if name in elements["face"]]
    if lists and isinstance(places := lists[0], PlyList):
        places_start = np.cumsum(places.counts) - places.counts
        corner_start = np.cumsum(sizes) - sizes
        has_places = (places.counts == 2 * sizes)[owners]
        first = places_start[owners, None] + 2 * (triangles - corner_start[owners, None])
        uv = np.full((*triangles.shape, 2), np.nan)
        uv[has_places] = places.values[first[has_places, :, None] + np.arange(2)]
        return uv
    vertex_uv = find_columns(elements["vertex"], TEXTURE_NAMES)
    if vertex_uv is None:
        return np.full((*triangles.shape, 2), np.nan)
    return vertex_uv[corners[triangles]].astype(np.float64)


def read_texture_numbers(face: Columns, num_faces: int) -> Int[np.ndarray, " p"]:
    """Return the number of each face's image, zero for all if the file has none."""
    for name in NUMBER_NAMES:
        if name in face and isinstance(numbers := face[name], np.ndarray):
            return numbers.astype(np.int64)
    return np.zeros(num_faces, np.int64)


def apply_textures(
    path: Path,
    surface: Surface,
    uv: Float[np.ndarray, "t 3 2"],
    numbers: Int[np.ndarray, " t"],
    names: Sequence[str],
) -> MeshContent:
    """Split a surface by the images of its triangles; those without keep their other colors.

    Raises ValueError for too many or unreadable images.
    """
    if len(names) > MAX_TEXTURES:
        raise UnsupportedContentError(
            f"it has {len(names)} textures, the maximum is {MAX_TEXTURES}: merge them"
        )
    is_textured = np.isfinite(uv).all((1, 2)) & (numbers >= 0) & (numbers < len(names))
    if not is_textured.any():
        note = "it names a texture, but no face has a place in it: no colors from it"
        return MeshContent([surface], notes=(note,))
    numbers = np.where(is_textured, numbers, -1)
    loader, surfaces = TextureLoader(path), []
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        part = surface if len(rows) == len(numbers) else select_faces(surface, rows)
        if number >= 0 and (pixels := loader.read(names[number])) is not None:
            place = uv[rows] * (1, -1) + (0, 1)
            part = part._replace(texture=Texture(pixels, place))
        surfaces.append(part)
    return MeshContent(surfaces, notes=tuple(loader.notes))
