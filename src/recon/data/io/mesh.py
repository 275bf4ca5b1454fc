"""Read points from .obj files with trimesh."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from trimesh import PointCloud, Trimesh, load_scene
from trimesh.resolvers import FilePathResolver

from recon.data.dataset import Cloud
from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.header_checks import (
    MAX_MESH_PARTS,
    check_obj,
)
from recon.data.io.image_checks import check_image, check_jpeg_scans, load_rgb
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface, Texture
from recon.data.io.meshes.textures import MAX_SIDECAR_BYTES, MAX_TEXTURE_PIXELS
from recon.data.io.points.cloud import build_cloud
from recon.data.io.points.table import PointTable, ReadOptions
from recon.data.io.surface_sampling import sample_surfaces

MESH_SUFFIXES = (".obj",)
TRIMESH_DEFAULT_GRAYS = ((102, 102, 102), (100, 100, 100))
"""Colors that trimesh gives to materials without a color."""
COLOR_TEXTURES = ("baseColorTexture", "image")
"""Attributes of trimesh's materials for a color texture."""
OTHER_TEXTURES = (
    "emissiveTexture",
    "normalTexture",
    "occlusionTexture",
    "metallicRoughnessTexture",
)
"""Attributes for other textures, which are only checked."""
HEADER_CHECKS = {".obj": check_obj}


def read_mesh(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of a file, or its points if it has no faces.

    Raises ValueError or FileNotFoundError that names the file.
    """
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        if check := HEADER_CHECKS.get(path.suffix.lower()):
            check(path)
        parts = _load_parts(path, path.suffix[1:])
        pixels = dict[int, np.ndarray]()
        meshes = [p for p in parts if isinstance(p, Trimesh) and len(p.faces)]
        surfaces = [_convert_part(part, pixels) for part in meshes]
    if surfaces:
        return MeshContent(surfaces)
    clouds = [p for p in parts if isinstance(p, Trimesh | PointCloud) and len(p.vertices)]
    if not clouds:
        return MeshContent()
    points = np.concatenate([np.asarray(cloud.vertices) for cloud in clouds])
    colors = [_vertex_colors(cloud) for cloud in clouds]
    present_colors = [color for color in colors if color is not None]
    all_colors = np.concatenate(present_colors) if len(present_colors) == len(clouds) else None
    return MeshContent(points=PointTable(points, colors=all_colors))


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


def _convert_part(part: Any, pixels: dict[int, np.ndarray]) -> Surface:
    """Convert a mesh of trimesh, with the colors of its material, vertices or faces.

    `pixels` caches decoded textures.
    """
    visual, faces = part.visual, np.asarray(part.faces)
    surface = Surface(np.asarray(part.vertices), faces)
    if visual.kind == "texture":
        image, uv = _find_color_texture(visual.material), getattr(visual, "uv", None)
        if image is not None and uv is not None:
            uv = np.asarray(uv)[faces] * (1, -1) + (0, 1)
            if id(image) not in pixels:
                pixels[id(image)] = np.asarray(load_rgb(image))
            return surface._replace(texture=Texture(pixels[id(image)], uv))
        color = tuple(np.asarray(visual.material.main_color)[:3])
        if color in TRIMESH_DEFAULT_GRAYS:
            return surface
        return surface._replace(base_color=np.array(color) / 255)
    if not visual.defined:
        return surface
    if visual.kind == "vertex":
        return surface._replace(vertex_colors=np.asarray(visual.vertex_colors)[:, :3])
    return surface._replace(face_colors=np.asarray(visual.face_colors)[:, :3])


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


class _LimitedResolver(FilePathResolver):
    """Give trimesh the material and texture files of a mesh, up to a total size and number.

    trimesh reads a texture once for each material that uses it, so the sum is limited, too. It
    ignores files that it cannot get; call `check_limits` afterwards to raise ValueError.
    """

    num_bytes = num_files = 0

    def get(self, name: str) -> bytes:
        self.check_limits()
        content: bytes = super().get(name)
        self.num_bytes, self.num_files = self.num_bytes + len(content), self.num_files + 1
        check_jpeg_scans(content)
        return content

    def check_limits(self) -> None:
        if self.num_bytes > 4 * MAX_SIDECAR_BYTES or self.num_files > MAX_MESH_PARTS:
            raise UnsupportedContentError(
                f"it uses {self.num_files} material and texture files of {self.num_bytes:,} bytes, "
                f"the maximum is {MAX_MESH_PARTS} files of {4 * MAX_SIDECAR_BYTES:,} bytes: merge "
                "materials or use smaller textures"
            )

    def absolute(self, name: str) -> Path:
        path: Path = super().absolute(name)
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_SIDECAR_BYTES):
            raise ValueError(f"{name}: not a regular file of at most {MAX_SIDECAR_BYTES:,} bytes")
        return path


def _load_parts(source: Path | io.BytesIO, file_type: str) -> list[Any]:
    """Load the parts of a scene in scene coordinates, without merging or cleaning vertices."""
    resolver = _LimitedResolver(source) if isinstance(source, Path) else None
    scene = load_scene(source, file_type=file_type.lower(), process=False, resolver=resolver)
    if resolver is not None:
        resolver.check_limits()
    check_textures([getattr(geometry, "visual", None) for geometry in scene.geometry.values()])
    parts = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        parts.append(_copy_geometry(scene.geometry[name]).apply_transform(transform))
    return parts


def _copy_geometry(geometry: Any) -> Any:
    """Copy a part but share its textures: each copy would decode all of them again."""
    if not isinstance(geometry, Trimesh):
        return geometry.copy()
    part = geometry.copy(include_visual=False)
    part.visual = geometry.visual
    return part


def _vertex_colors(part: Any) -> np.ndarray | None:
    """Return the vertex colors of a part, None where the file has none."""
    if isinstance(part, PointCloud):
        colors = part.colors
    else:
        colors = part.visual.vertex_colors if part.visual.defined else ()
    # trimesh gives one gray to all vertices without a color.
    has_colors = len(colors) == len(part.vertices) and np.ptp(np.asarray(colors), axis=0).any()
    return np.asarray(colors)[:, :3] if has_colors else None
