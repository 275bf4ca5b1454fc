"""Sample points, normals and colors from the surfaces of meshes, and build checked clouds."""

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8
from trimesh import Trimesh
from trimesh.sample import sample_surface
from trimesh.triangles import points_to_barycentric

from recon.data.dataset import Cloud
from recon.data.io.file_checks import UnsupportedContentError, check_cloud, wrap_read_errors
from recon.data.io.image_checks import check_image, load_rgb

FLOAT32_EPS = 2.0**-23
"""Relative spacing of float32 numbers."""
TRIMESH_DEFAULT_GRAYS = ((102, 102, 102), (100, 100, 100))
"""Colors that trimesh gives to materials without a color."""
MAX_TEXTURE_PIXELS = 2**27
"""Maximum number of pixels of all color textures of a file."""
COLOR_TEXTURES = ("baseColorTexture", "image")
"""Attributes of trimesh's materials for a color texture."""
OTHER_TEXTURES = (
    "emissiveTexture",
    "normalTexture",
    "occlusionTexture",
    "metallicRoughnessTexture",
)
"""Attributes for other textures, which are only checked."""


class Surface(NamedTuple):
    """One mesh of a file; `vertex_colors` are used instead of its `visual`."""

    mesh: Trimesh
    vertex_colors: Num[np.ndarray, "v 3"] | None = None


def compute_recenter_offset(points: np.ndarray) -> np.ndarray | None:
    """Return an offset to subtract from coordinates that float32 would round too coarsely.

    It is the rounded center of the bounding box, (3,); None where float32 is exact to 1e-5 of the
    extent.
    """
    kind, size = points.dtype.kind, points.dtype.itemsize
    is_wide = points.dtype == np.float64 or (kind in "iu" and size > 2)
    if not is_wide or not len(points) or not np.isfinite(points).all():
        return None
    low, high = points.min(0), points.max(0)
    spacing, extent = float(np.abs(points).max()) * FLOAT32_EPS, float((high - low).max())
    if extent == 0 or spacing <= 1e-5 * extent:
        return None
    return np.round(low / 2 + high / 2).astype(points.dtype)


def normalize_colors(colors: Any, source: str) -> Num[np.ndarray, "n 3"]:
    """Return RGB as uint8 in [0, 255] or float32 in [0, 1], depending on the largest value.

    Accepts ranges up to 1, 255 and 65535; raises ValueError for values outside.
    """
    rgb = np.asarray(colors)[:, :3]
    if rgb.dtype == np.uint8:
        return rgb
    rgb = check_cloud(rgb, f"{source} (colors)")
    low, high = float(rgb.min()), float(rgb.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"{source}: its colors are in [{low:g}, {high:g}], not in [0, 1], [0, 255] or "
            "[0, 65535]: convert them"
        )
    if high <= 1:
        return rgb
    return rgb.round().astype(np.uint8) if high <= 255 else (rgb / 65535).astype(np.float32)


def make_cloud(points: Any, source: str, normals: Any = None, colors: Any = None) -> Cloud:
    """Build a cloud of checked points, normals and colors; non-finite normals become zero.

    Coordinates that float32 would round too coarsely are shifted; `Cloud.origin` is the shift.
    Raises ValueError that names `source`.
    """
    origin = None
    if isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype.kind in "iuf":
        points = points[:, :3]
        if (offset := compute_recenter_offset(points)) is not None:
            points, origin = points - offset, (float(offset[0]), float(offset[1]), float(offset[2]))
    cloud = check_cloud(points, source)
    for name, field in (("normals", normals), ("colors", colors)):
        if field is not None and (np.ndim(field) != 2 or len(field) != len(cloud)):
            raise ValueError(
                f"{source}: has {name} of shape {np.shape(field)} for {len(cloud)} points: "
                "export it again"
            )
    if normals is not None:
        finite = np.nan_to_num(np.asarray(normals)[:, :3], nan=0.0, posinf=0.0, neginf=0.0)
        normals = check_cloud(finite, f"{source} (normals)")
    rgb = None if colors is None else normalize_colors(colors, source)
    return Cloud(cloud, normals, rgb, origin=origin)


def sample_surfaces(surfaces: list[Surface], count: int, source: str, name: str) -> Cloud:
    """Sample `count` points uniformly by area from all surfaces, seeded by the file's `name`.

    Raises ValueError that names `source` for invalid faces or surfaces without an area.
    """
    for surface in surfaces:
        faces, vertices = surface.mesh.faces, surface.mesh.vertices
        check_cloud(np.asarray(vertices), source)
        if int(np.min(faces)) < 0 or int(np.max(faces)) >= len(vertices):
            raise ValueError(
                f"{source}: a face uses a vertex index outside its {len(vertices)} vertices: "
                "export it again"
            )
    areas = np.array([surface.mesh.area for surface in surfaces])
    if not np.isfinite(areas).all() or areas.sum() <= 0:
        raise ValueError(f"{source}: its faces have no area to sample points from: export it again")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    counts = rng.multinomial(count, areas / areas.sum())
    samples = []
    pixels: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    with wrap_read_errors(source, "shape"):
        for surface, number in zip(surfaces, counts, strict=True):
            if number:
                points, faces = sample_surface(surface.mesh, int(number), seed=rng)[:2]
                normals = surface.mesh.face_normals[faces]
                samples.append(
                    (points, normals, _interpolate_colors(surface, points, faces, pixels))
                )
    points, normals = (np.concatenate([sample[i] for sample in samples]) for i in (0, 1))
    colors = [sample[2] for sample in samples if sample[2] is not None]
    all_colors = np.concatenate(colors) if len(colors) == len(samples) else None
    return make_cloud(points, source, normals, all_colors)


def _interpolate_colors(
    surface: Surface,
    points: Float[np.ndarray, "n 3"],
    faces: Num[np.ndarray, " n"],
    pixels: dict[int, UInt8[np.ndarray, "h w 3"]],
) -> Num[np.ndarray, "n 3"] | None:
    """Return the colors of points on faces, from vertices, texture, faces or material.

    `pixels` caches decoded textures between surfaces: decoding a large one takes a second.
    """
    mesh, visual = surface.mesh, surface.mesh.visual
    corners = mesh.faces[faces]
    if surface.vertex_colors is not None or visual.kind == "texture":
        weights = points_to_barycentric(mesh.triangles[faces], points)
    if surface.vertex_colors is not None:
        blended = np.einsum("nk,nkc->nc", weights, surface.vertex_colors[corners])
        return blended.round().clip(0, 255).astype(np.uint8)
    if visual.kind == "texture":
        image, uv = _find_color_texture(visual.material), getattr(visual, "uv", None)
        if image is not None and uv is not None:
            point_uv = np.einsum("nk,nkc->nc", weights, np.asarray(uv)[corners])
            if id(image) not in pixels:
                pixels[id(image)] = np.asarray(load_rgb(image))
            return _sample_texture(pixels[id(image)], point_uv)
        color = np.asarray(visual.material.main_color)[:3]
        return None if tuple(color) in TRIMESH_DEFAULT_GRAYS else np.tile(color, (len(points), 1))
    return np.asarray(visual.face_colors)[faces, :3] if visual.defined else None


def _sample_texture(
    pixels: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "n 2"]
) -> UInt8[np.ndarray, "n 3"]:
    """Sample a texture at `uv` bilinearly; it repeats beyond its edges, and v points up."""
    height, width = pixels.shape[:2]
    x, y = uv[:, 0] * (width - 1), (1 - uv[:, 1]) * (height - 1)
    left, right = (f(x).astype(np.int64) % width for f in (np.floor, np.ceil))
    top, bottom = (f(y).astype(np.int64) % height for f in (np.floor, np.ceil))
    dx, dy = (x % width - left)[:, None], (y % height - top)[:, None]
    upper = (1 - dx) * (1 - dy) * pixels[top, left] + dx * (1 - dy) * pixels[top, right]
    lower = (1 - dx) * dy * pixels[bottom, left] + dx * dy * pixels[bottom, right]
    return (upper + lower).round().astype(np.uint8)


def check_textures(visuals: Iterable[Any]) -> None:
    """Raise ValueError for textures of an unsupported format or of too many pixels in total."""
    num_pixels: dict[int, int] = {}
    for material in (getattr(visual, "material", None) for visual in visuals):
        for name in (*COLOR_TEXTURES, *OTHER_TEXTURES):
            if (image := getattr(material, name, None)) is not None:
                check_image(image)
                if name in COLOR_TEXTURES:
                    num_pixels[id(image)] = image.width * image.height
    if sum(num_pixels.values()) > MAX_TEXTURE_PIXELS:
        raise UnsupportedContentError(
            f"it has textures of {sum(num_pixels.values()):,} pixels, the maximum is "
            f"{MAX_TEXTURE_PIXELS:,}: scale them down"
        )


def _find_color_texture(material: Any) -> Any:
    images = (getattr(material, name, None) for name in COLOR_TEXTURES)
    return next((image for image in images if image is not None), None)
