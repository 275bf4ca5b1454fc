"""From what a file holds to a checked cloud: surfaces are sampled, colours and normals kept."""

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8
from trimesh import Trimesh
from trimesh.sample import sample_surface
from trimesh.triangles import points_to_barycentric

from recon.data.dataset import Cloud
from recon.data.io.file_checks import COPY_AGAIN_HINT, check_cloud, wrap_read_errors
from recon.data.io.image_checks import check_image, load_rgb

FLOAT32_EPS = 2.0**-23
"""Of float32, relative to a number's size."""
TRIMESH_DEFAULT_GRAYS = ((102, 102, 102), (100, 100, 100))
"""Colours that trimesh gives to what has none."""


COLOR_TEXTURES = ("baseColorTexture", "image")
MAX_TEXTURE_PIXELS = 2**27
"""Pixels of all textures of a file that are drawn."""
OTHER_TEXTURES = (
    "emissiveTexture",
    "normalTexture",
    "occlusionTexture",
    "metallicRoughnessTexture",
)
"""Textures of a material that are drawn, and those that only come along."""


class Surface(NamedTuple):
    """One mesh of a file: its geometry and, where it is painted, how."""

    mesh: Trimesh
    vertex_colors: Num[np.ndarray, "v 3"] | None = None


def compute_recenter_offset(points: np.ndarray) -> np.ndarray | None:
    """Return what to subtract, in whole units, from coordinates whose detail float32 would lose."""
    wide = points.dtype == np.float64 or (points.dtype.kind in "iu" and points.dtype.itemsize > 2)
    if not wide or not len(points) or not np.isfinite(points).all():
        return None
    low, high = points.min(0), points.max(0)
    step, extent = float(np.abs(points).max()) * FLOAT32_EPS, float((high - low).max())
    if extent == 0 or step <= 1e-5 * extent:
        return None
    return np.round(low / 2 + high / 2).astype(points.dtype)


def normalize_colors(colors: Any, source: str) -> Num[np.ndarray, "n 3"]:
    """Return RGB as bytes or as fractions; raise ValueError for values that are neither."""
    rgb = np.asarray(colors)[:, :3]
    if rgb.dtype == np.uint8:
        return rgb
    rgb = check_cloud(rgb, f"{source} (colours)")
    low, high = float(rgb.min()), float(rgb.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"{source}: its colours lie in [{low:g}, {high:g}], not in [0, 255]: {COPY_AGAIN_HINT}"
        )
    if high <= 1:
        return rgb
    return rgb.round().astype(np.uint8) if high <= 255 else (rgb / 65535).astype(np.float32)


def make_cloud(points: Any, source: str, normals: Any = None, colors: Any = None) -> Cloud:
    """Check a cloud and what its points carry; normals that are not finite become zero."""
    origin = None
    if isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype.kind in "iuf":
        points = points[:, :3]
        if (far := compute_recenter_offset(points)) is not None:
            points, origin = points - far, (float(far[0]), float(far[1]), float(far[2]))
    cloud = check_cloud(points, source)
    for name, field in (("normals", normals), ("colours", colors)):
        if field is not None and (np.ndim(field) != 2 or len(field) != len(cloud)):
            raise ValueError(
                f"{source}: has {name} of shape {np.shape(field)} for {len(cloud)} points: "
                f"{COPY_AGAIN_HINT}"
            )
    if normals is not None:
        finite = np.nan_to_num(np.asarray(normals)[:, :3], nan=0.0, posinf=0.0, neginf=0.0)
        normals = check_cloud(finite, f"{source} (normals)")
    painted = None if colors is None else normalize_colors(colors, source)
    return Cloud(cloud, normals, painted, origin=origin)


def sample_surfaces(surfaces: list[Surface], count: int, source: str, name: str) -> Cloud:
    """Draw `count` points by area from all surfaces together, seeded by the file's name."""
    for surface in surfaces:
        faces, vertices = surface.mesh.faces, surface.mesh.vertices
        check_cloud(np.asarray(vertices), source)
        if int(np.min(faces)) < 0 or int(np.max(faces)) >= len(vertices):
            raise ValueError(
                f"{source}: a face names none of the {len(vertices)} vertices: {COPY_AGAIN_HINT}"
            )
    areas = np.array([surface.mesh.area for surface in surfaces])
    if not np.isfinite(areas).all() or areas.sum() <= 0:
        raise ValueError(f"{source}: its faces have no area to draw points from: {COPY_AGAIN_HINT}")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    counts = rng.multinomial(count, areas / areas.sum())
    drawn = []
    pixels: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    with wrap_read_errors(source, "shape"):
        for surface, number in zip(surfaces, counts, strict=True):
            if number:
                points, faces = sample_surface(surface.mesh, int(number), seed=rng)[:2]
                normals = surface.mesh.face_normals[faces]
                drawn.append((points, normals, _paint(surface, points, faces, pixels)))
    points, normals = (np.concatenate([part[i] for part in drawn]) for i in (0, 1))
    colors = [part[2] for part in drawn if part[2] is not None]
    whole = len(colors) == len(drawn)
    return make_cloud(points, source, normals, np.concatenate(colors) if whole else None)


def _paint(
    surface: Surface,
    points: Float[np.ndarray, "n 3"],
    faces: Num[np.ndarray, " n"],
    pixels: dict[int, UInt8[np.ndarray, "h w 3"]],
) -> Num[np.ndarray, "n 3"] | None:
    """Return the colours of points on faces: of vertices, texture, faces or material.

    `pixels` are those of textures, kept from part to part: unpacking a large one takes a second.
    """
    mesh, visual = surface.mesh, surface.mesh.visual
    corners = mesh.faces[faces]
    if surface.vertex_colors is not None or visual.kind == "texture":
        weights = points_to_barycentric(mesh.triangles[faces], points)
    if surface.vertex_colors is not None:
        blended = np.einsum("nk,nkc->nc", weights, surface.vertex_colors[corners])
        return blended.round().clip(0, 255).astype(np.uint8)
    if visual.kind == "texture":
        image, uv = _texture(visual.material), getattr(visual, "uv", None)
        if image is not None and uv is not None:
            place = np.einsum("nk,nkc->nc", weights, np.asarray(uv)[corners])
            if id(image) not in pixels:
                pixels[id(image)] = np.asarray(load_rgb(image))
            return _colors_at(pixels[id(image)], place)
        color = np.asarray(visual.material.main_color)[:3]
        return None if tuple(color) in TRIMESH_DEFAULT_GRAYS else np.tile(color, (len(points), 1))
    return np.asarray(visual.face_colors)[faces, :3] if visual.defined else None


def _colors_at(
    pixels: UInt8[np.ndarray, "h w 3"], place: Float[np.ndarray, "n 2"]
) -> UInt8[np.ndarray, "n 3"]:
    """Interpolate a picture between its pixels; it goes on beyond its edges, v points upwards."""
    height, width = pixels.shape[:2]
    x, y = place[:, 0] * (width - 1), (1 - place[:, 1]) * (height - 1)
    left, right = (f(x).astype(np.int64) % width for f in (np.floor, np.ceil))
    top, bottom = (f(y).astype(np.int64) % height for f in (np.floor, np.ceil))
    dx, dy = (x % width - left)[:, None], (y % height - top)[:, None]
    upper = (1 - dx) * (1 - dy) * pixels[top, left] + dx * (1 - dy) * pixels[top, right]
    lower = (1 - dx) * dy * pixels[bottom, left] + dx * dy * pixels[bottom, right]
    return (upper + lower).round().astype(np.uint8)


def check_textures(visuals: Iterable[Any]) -> None:
    """Raise ValueError for textures that are no pictures to read, or too many pixels together."""
    drawn: dict[int, int] = {}
    for material in (getattr(visual, "material", None) for visual in visuals):
        for name in (*COLOR_TEXTURES, *OTHER_TEXTURES):
            if (image := getattr(material, name, None)) is not None:
                check_image(image)
                drawn |= {id(image): image.width * image.height} if name in COLOR_TEXTURES else {}
    if sum(drawn.values()) > MAX_TEXTURE_PIXELS:
        raise ValueError(
            f"textures of {sum(drawn.values()):,} pixels, {MAX_TEXTURE_PIXELS:,} are read"
        )


def _texture(material: Any) -> Any:
    found = (getattr(material, name, None) for name in COLOR_TEXTURES)
    return next((image for image in found if image is not None), None)
