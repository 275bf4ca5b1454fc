"""Read .ply files: points with all their properties, polygons, triangle strips and textures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int, Num

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.ply_elements import (
    Columns,
    PlyList,
    read_elements,
    stack_columns,
)
from recon.data.io.meshes.ply_header import parse_header
from recon.data.io.meshes.ply_textures import (
    apply_textures,
    read_texture_numbers,
    read_texture_places,
)
from recon.data.io.meshes.surface import MAX_MESH_BYTES, MeshContent, Surface
from recon.data.io.meshes.triangulation import triangulate
from recon.data.io.points.cloud import normalize_colors
from recon.data.io.points.columns import find_names
from recon.data.io.points.table import PointTable, ReadOptions

INDEX_NAMES = ("vertex_indices", "vertex_index")
SPLAT_NAMES = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Names of properties, in order of preference."""
SPHERICAL_HARMONIC_0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0, which colors of Gaussian splats are divided by."""


def read_ply(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of a file, or its points with all properties if it has no faces.

    Raises ValueError that names the file.
    """
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        content = path.read_bytes()
        header = parse_header(content)
        elements = read_elements(content, header)
        if "vertex" not in elements:
            raise ValueError(f"it has no vertices, only {list(elements)!s:.200}")
        vertex = elements["vertex"]
        if (points := stack_columns(vertex, ("x", "y", "z"))) is None:
            raise UnsupportedContentError("its vertices have no x, y and z: export it again")
        corners, sizes = _read_polygons(elements)
        triangles, owners = triangulate(points, corners, sizes)
        if not len(triangles):
            return MeshContent(points=_build_table(vertex, points))
        is_plain = len(corners) == triangles.size and len(triangles) == len(sizes)
        faces = corners.reshape(-1, 3) if is_plain else corners[triangles]
        surface = Surface(points.astype(np.float64), faces)
        if (colors := _find_field(vertex, "colors")) is not None:
            surface = surface._replace(vertex_colors=normalize_colors(colors, str(path)))
        if "tristrips" in elements:
            return MeshContent([surface])
        if (face_colors := _find_field(elements["face"], "colors")) is not None:
            surface = surface._replace(face_colors=normalize_colors(face_colors, str(path))[owners])
        if not header.textures:
            return MeshContent([surface])
        uv = read_texture_places(elements, corners, sizes, triangles, owners)
        numbers = read_texture_numbers(elements["face"], len(sizes))[owners]
        return apply_textures(path, surface, uv, numbers, header.textures)


def _read_polygons(
    elements: Mapping[str, Columns],
) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " p"]]:
    """Return the vertex indices of all polygons, one after another, and their sizes."""
    corners, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for name in ("face", "tristrips"):
        if name not in elements:
            continue
        columns = elements[name]
        lists = [columns[key] for key in INDEX_NAMES if key in columns]
        if not lists or not isinstance(lists[0], PlyList):
            raise ValueError(f"its {name} elements have no {' or '.join(INDEX_NAMES)}")
        counts, values = lists[0].counts, lists[0].values.astype(np.int64)
        if name == "tristrips":
            values = _split_strips(counts, values).reshape(-1)
            counts = np.full(len(values) // 3, 3)
        corners.append(values)
        sizes.append(counts)
    return np.concatenate(corners), np.concatenate(sizes)


def _split_strips(
    counts: Int[np.ndarray, " n"], values: Int[np.ndarray, " m"]
) -> Int[np.ndarray, "t 3"]:
    """Return the triangles of strips; -1 begins a new strip within a list."""
    joined = np.insert(values, np.cumsum(counts), -1)
    place = np.arange(len(joined))
    last_break = np.maximum.accumulate(np.where(joined == -1, place, -1))
    first, second, third = joined[:-2], joined[1:-1], joined[2:]
    is_odd = (place - last_break)[:-2] % 2 == 0  # the triangle that follows a break has number 1
    triangles = np.stack(
        [np.where(is_odd, second, first), np.where(is_odd, first, second), third], 1
    )
    is_valid = (first != -1) & (second != -1) & (third != -1)
    is_valid &= (first != second) & (second != third) & (first != third)
    return triangles[is_valid]


def _find_field(columns: Columns, field: str) -> Num[np.ndarray, "n 3"] | None:
    """Return the properties that are `normals` or `colors` by their names, None without them."""
    names = [name.lower() for name in find_names(columns, field)]
    return stack_columns(columns, names) if names else None


def _build_table(vertex: Columns, points: Num[np.ndarray, "n 3"]) -> PointTable:
    """Return points with normals, colors and all other properties by name."""
    normals, colors = _find_field(vertex, "normals"), _find_field(vertex, "colors")
    notes: tuple[str, ...] = ()
    harmonics = stack_columns(vertex, SPLAT_NAMES)
    if colors is None and harmonics is not None:
        colors = (0.5 + SPHERICAL_HARMONIC_0 * harmonics).clip(0, 1)
        notes = ("its points are Gaussian splats: their centers and colors from f_dc are used",)
    used = {*find_names(vertex, "normals"), *find_names(vertex, "colors")}
    extra = {
        name: values
        for name, values in vertex.items()
        if name not in used and name.lower() not in "xyz" and not isinstance(values, PlyList)
    }
    return PointTable(points, normals, colors, extra, notes=notes)
