"""Read .obj files: polygons, vertex colors, and the materials and textures beside them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.mtl import Material, TextureMap, parse_mtl
from recon.data.io.meshes.numbers import read_text
from recon.data.io.meshes.obj_lines import (
    FREE_FORM,
    ObjFaces,
    ObjLines,
    parse_faces,
    parse_rows,
    split_lines,
    take_columns,
)
from recon.data.io.meshes.surface import (
    MAX_MESH_BYTES,
    MeshContent,
    Surface,
    Texture,
    select_faces,
)
from recon.data.io.meshes.textures import TextureLoader
from recon.data.io.meshes.triangulation import check_indices, triangulate
from recon.data.io.points.cloud import normalize_colors
from recon.data.io.points.table import PointTable, ReadOptions

MAX_MATERIALS = 2**13
"""Maximum number of materials; each takes about a millisecond."""


class _Appearance(NamedTuple):
    """What colors a triangle; equal ones are one surface."""

    base_color: tuple[float, float, float] | None = None
    texture: TextureMap | None = None
    is_missing: bool = False
    """Whether the texture is missing: the color of the material is not used alone."""


def read_obj(path: Path, options: ReadOptions) -> MeshContent:
    """Read one surface for each material of a file, or its points if it has no faces.

    Raises ValueError that names the file.
    """
    check_file(path, MAX_MESH_BYTES)
    with wrap_read_errors(path, "shape"):
        content = read_text(path)
        if b"\0" in content[:4096]:
            raise ValueError("it is not text")
        lines = split_lines(content)
        numbers, counts = parse_rows(lines, lines.is_vertex, b"v", 3)
        if len(counts) and int(counts.max()) > 8:
            raise ValueError("it has vertices of more than eight numbers")
        vertices = take_columns(numbers, counts, (0, 1, 2))
        colors, notes = _read_colors(numbers, counts, str(path))
        notes = (*notes, *_describe_omitted(lines))
        faces = parse_faces(lines)
        triangles, owners = triangulate(vertices, faces.corners, faces.sizes)
        if not len(triangles):
            normals = _read_normals(lines, len(vertices))
            table = PointTable(vertices, normals, colors, notes=notes)
            return MeshContent(points=table if len(vertices) else None)
        surface = Surface(vertices, faces.corners[triangles], colors)
        return _apply_materials(path, lines, faces, surface, triangles, owners, notes)


def _read_colors(
    numbers: Float[np.ndarray, " m"], counts: Int[np.ndarray, " v"], source: str
) -> tuple[Num[np.ndarray, "v 3"] | None, tuple[str, ...]]:
    """Return the colors after x y z, or after x y z w, where all vertices have one."""
    has_color = counts >= 6
    if not has_color.any():
        return None, ()
    if not has_color.all():
        count, total = int(has_color.sum()), len(counts)
        return None, (f"{count:,} of {total:,} vertices have colors: none are used",)
    start = 3
    if (counts == 8).all() or ((counts == 7).all() and (numbers[3::7] == 1).all()):
        start = 4  # x y z w r g b; otherwise seven numbers are x y z r g b a
    return normalize_colors(take_columns(numbers, counts, range(start, start + 3)), source), ()


def _describe_omitted(lines: ObjLines) -> tuple[str, ...]:
    names = [words[0].decode("latin1") for _, words in lines.others if words]
    notes = []
    if count := sum(name in FREE_FORM for name in names):
        notes.append(f"{count:,} free-form curves and surfaces are omitted: export polygons")
    if (count := names.count("l")) and lines.is_face.any():
        notes.append(f"{count:,} lines between vertices are omitted")
    return tuple(notes)


def _read_normals(lines: ObjLines, num_vertices: int) -> Float[np.ndarray, "v 3"] | None:
    """Return normals where there is one for each vertex."""
    if not num_vertices or int(lines.is_normal.sum()) != num_vertices:
        return None
    return take_columns(*parse_rows(lines, lines.is_normal, b"vn", 3), (0, 1, 2))


def _apply_materials(
    path: Path,
    lines: ObjLines,
    faces: ObjFaces,
    surface: Surface,
    triangles: Int[np.ndarray, "t 3"],
    owners: Int[np.ndarray, " t"],
    notes: tuple[str, ...],
) -> MeshContent:
    """Split a surface by what colors its triangles."""
    loader = TextureLoader(path)
    materials, library_notes = _read_libraries(lines, loader)
    names, face_names = _find_names(lines)
    looks, ids = _find_appearances(names, materials, loader)
    ids = ids[face_names]
    uv = _read_uv(lines, faces)
    has_uv = faces.uv >= 0
    textured = np.array([look.texture is not None for look in looks])[ids][owners]
    textured &= has_uv[triangles].all(1)
    keys = 2 * ids[owners] + textured
    surfaces = []
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        part = surface if len(rows) == len(keys) else select_faces(surface, rows)
        corner_uv = uv[faces.uv[triangles[rows]]] if key % 2 else None
        surfaces.append(_color(part, looks[key // 2], corner_uv, loader))
    notes = (*notes, *library_notes, *loader.notes, *_describe_materials(names, materials, looks))
    return MeshContent(surfaces, notes=notes)


def _color(
    part: Surface, look: _Appearance, uv: Float[np.ndarray, "t 3 2"] | None, loader: TextureLoader
) -> Surface:
    """Add the color and texture of a material to its triangles."""
    if look.base_color is not None and not look.is_missing:
        part = part._replace(base_color=np.array(look.base_color))
    if look.texture is None or uv is None or (pixels := loader.read(look.texture.name)) is None:
        return part
    place = (uv * look.texture.scale + look.texture.offset) * (1, -1) + (0, 1)
    wrap = "clamp" if look.texture.is_clamped else "repeat"
    return part._replace(texture=Texture(pixels, place, (wrap, wrap)))


def _read_uv(lines: ObjLines, faces: ObjFaces) -> Float[np.ndarray, "n 2"]:
    if not (faces.uv >= 0).any():
        return np.empty((0, 2))
    uv = take_columns(*parse_rows(lines, lines.is_uv, b"vt", 1), (0, 1))
    check_indices(faces.uv[faces.uv >= 0], len(uv))
    return uv


def _read_libraries(
    lines: ObjLines, loader: TextureLoader
) -> tuple[Mapping[str, Material], tuple[str, ...]]:
    """Return the materials of all libraries by name, and notes about those that are missing."""
    materials, missing = dict[str, Material](), list[str]()
    for name in dict.fromkeys(_split_names(lines, loader)):
        if (path := loader.find(name)) is None:
            missing.append(name)
        else:
            materials |= parse_mtl(_decode(loader.read_bytes(path)))
    return materials, tuple(
        f"the material file {name!r:.200} is missing: no colors from it" for name in missing
    )


def _split_names(lines: ObjLines, loader: TextureLoader) -> Sequence[str]:
    """Return the names of libraries; names may have blanks, and a line may have several names."""
    names = list[str]()
    for row, words in lines.others:
        if words[:1] == [b"mtllib"] and len(words) > 1:
            whole = _statement(lines, row)
            several = [n.replace("\\ ", " ") for n in re.split(r"(?<!\\)\s+", whole)]
            is_one = len(several) < 2 or loader.find(whole) is not None
            has_extensions = all(name.lower().endswith(".mtl") for name in several)
            names += [whole] if is_one or not has_extensions else several
    return names


def _statement(lines: ObjLines, row: int) -> str:
    """Return a statement without its keyword."""
    line = lines.content[lines.starts[row] : lines.ends[row]]
    return _decode(line.split(None, 1)[1].strip())


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        return text.decode("latin1")


def _find_names(lines: ObjLines) -> tuple[list[str], Int[np.ndarray, " p"]]:
    """Return the names of all materials, empty for none, and the number of each face's name."""
    names, rows, numbers = {"": 0}, [-1], [0]
    for row, words in lines.others:
        if words[:1] == [b"usemtl"]:
            name = _statement(lines, row) if len(words) > 1 else ""
            rows.append(row)
            numbers.append(names.setdefault(name, len(names)))
    if len(names) - 1 > MAX_MATERIALS:
        raise UnsupportedContentError(
            f"it has {len(names) - 1} materials, the maximum is {MAX_MATERIALS}: merge materials"
        )
    face_rows = np.flatnonzero(lines.is_face)
    last = np.searchsorted(rows, face_rows, side="right") - 1
    return list(names), np.array(numbers)[last]


def _find_appearances(
    names: Sequence[str], materials: Mapping[str, Material], loader: TextureLoader
) -> tuple[list[_Appearance], Int[np.ndarray, " n"]]:
    """Return the different appearances of materials, and the number of each material's one."""
    looks: dict[_Appearance, int] = {}
    ids = []
    for name in names:
        material = _get(materials, name) or Material()
        texture = material.texture
        is_missing = texture is not None and loader.read(texture.name) is None
        color = material.diffuse
        if texture is not None and color is not None and not any(color):
            color = None  # black would hide the texture
        look = _Appearance(color, None if is_missing else texture, is_missing)
        ids.append(looks.setdefault(look, len(looks)))
    return list(looks), np.array(ids)


def _get(materials: Mapping[str, Material], name: str) -> Material | None:
    """Return a material; a comment may follow its name."""
    found = materials.get(name)
    return found if found is not None else materials.get(name.partition("#")[0].strip())


def _describe_materials(
    names: Sequence[str], materials: Mapping[str, Material], looks: Sequence[_Appearance]
) -> tuple[str, ...]:
    notes = []
    unknown = [name for name in names if name and _get(materials, name) is None]
    if unknown and materials:
        notes.append(f"{len(unknown):,} materials are not defined, such as {unknown[0]!r:.100}")
    if ignored := {option for look in looks if look.texture for option in look.texture.ignored}:
        notes.append(f"the texture options {', '.join(sorted(ignored))} are not applied")
    return tuple(notes)
