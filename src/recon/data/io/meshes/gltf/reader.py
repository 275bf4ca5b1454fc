"""Read the surfaces or points of .gltf and .glb files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.colors import interpolate_colors
from recon.data.io.meshes.gltf.container import GltfFile
from recon.data.io.meshes.gltf.nodes import place_meshes
from recon.data.io.meshes.gltf.primitives import Part, Primitives
from recon.data.io.meshes.gltf.skins import Skins
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface, Texture
from recon.data.io.points.table import PointTable, ReadOptions

MAX_PRIMITIVES = 2**16
"""Maximum number of primitives in the scene; each takes about a tenth of a millisecond."""


def read_gltf(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of the default scene of a glTF 2.0 file, or its points without faces.

    Positions are in meters, with y up, in the pose of the file's nodes. Raises ValueError or
    FileNotFoundError that names the file.
    """
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        file = GltfFile(path)
        parts = _read_parts(file)
        faces = [part for part in parts if part.faces is not None and len(part.faces)]
        points = [part for part in parts if part.faces is None and len(part.vertices)]
        content = MeshContent(up="y", unit_meters=1.0)
        if faces:
            if points:
                file.notes.append(f"{len(points):,} clouds of points beside the faces: omitted")
            content = content._replace(surfaces=_build_surfaces(faces))
        elif points:
            content = content._replace(points=_build_points(points, file.notes))
        elif file.notes:
            raise UnsupportedContentError(
                f"it contains neither faces nor points ({'; '.join(file.notes)}): export some"
            )
        return content._replace(notes=(*file.notes, *file.images.notes))


def _read_parts(file: GltfFile) -> list[Part]:
    placements, transforms = place_meshes(file)
    num_parts = sum(len(file.item("meshes", p.mesh)["primitives"]) for p in placements)
    if num_parts > MAX_PRIMITIVES:
        raise UnsupportedContentError(
            f"its nodes refer to {num_parts:,} mesh primitives, the maximum is "
            f"{MAX_PRIMITIVES:,}: merge or remove some"
        )
    primitives = Primitives(file, Skins(file, transforms))
    parts = [part for placement in placements for part in primitives.place(placement)]
    if primitives.num_lines:
        file.notes.append(f"{primitives.num_lines:,} primitives are lines: omitted")
    return parts


def _build_surfaces(parts: Sequence[Part]) -> list[Surface]:
    """Merge the parts that share what their colors are computed from.

    If any part has colors, parts that set none are white, as glTF demands.
    """
    has_colors = any(part.sets_color() for part in parts)
    groups = dict[tuple[int, bool, str], list[Part]]()
    for part in parts:
        dtype = "" if part.colors is None else part.colors.dtype.str
        groups.setdefault((id(part.material), part.uv is None, dtype), []).append(part)
    return [_build_surface(_merge(group), is_colored=has_colors) for group in groups.values()]


def _merge(parts: Sequence[Part]) -> Part:
    """Join parts of triangles with the same material and the same kinds of attributes."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [np.asarray(p.faces) + start for p, start in zip(parts, starts, strict=False)]
    colors = [part.colors for part in parts if part.colors is not None]
    uv = [part.uv for part in parts if part.uv is not None]
    return parts[0]._replace(
        vertices=np.concatenate([part.vertices for part in parts]),
        faces=np.concatenate(faces),
        colors=np.concatenate(colors) if colors else None,
        uv=np.concatenate(uv) if uv else None,
    )


def _build_surface(part: Part, *, is_colored: bool) -> Surface:
    material, faces = part.material, np.asarray(part.faces)
    surface = Surface(part.vertices, faces, is_multiplied=True)
    if not is_colored or material.is_missing or (material.color_map and part.uv is None):
        return surface
    factor = np.ones(3) if material.factor is None else material.factor
    surface = surface._replace(vertex_colors=part.colors, base_color=factor)
    if material.color_map is None or part.uv is None:
        return surface
    color_map, uv = material.color_map, part.uv
    if color_map.transform is not None:
        uv = uv @ color_map.transform[:, :2].T + color_map.transform[:, 2]
    return surface._replace(
        texture=Texture(color_map.pixels, uv[faces], color_map.wrap, color_map.is_nearest)
    )


def _build_points(parts: Sequence[Part], notes: list[str]) -> PointTable:
    """Concatenate points with their colors and normals, if all parts have some."""
    colors = None
    if any(part.sets_color() for part in parts):
        present = [color for part in parts if (color := _color_points(part)) is not None]
        if len(present) == len(parts):
            colors = np.concatenate(present)
        else:
            notes.append(f"{len(present)} of {len(parts)} clouds have colors: none are used")
    normals = [part.normals for part in parts if part.normals is not None]
    return PointTable(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(normals) if len(normals) == len(parts) else None,
        colors,
    )


def _color_points(part: Part) -> UInt8[np.ndarray, "n 3"] | None:
    """Return the colors of points: those of triangles whose three corners are one point."""
    rows = np.arange(len(part.vertices))
    surface = _build_surface(part._replace(faces=np.stack([rows] * 3, 1)), is_colored=True)
    weights: Float[np.ndarray, "n 3"] = np.tile([1.0, 0, 0], (len(rows), 1))
    return interpolate_colors(surface, rows, weights)
