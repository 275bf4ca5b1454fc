"""Meshes and clouds in the formats of meshes: .ply by plyfile, the others by trimesh."""

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from plyfile import PlyData, PlyListProperty, PlyParseError
from trimesh import PointCloud, Trimesh, load_scene
from trimesh.resolvers import FilePathResolver

from recon.data.dataset import Cloud
from recon.data.io.file_checks import COPY_AGAIN_HINT, check_file, wrap_read_errors
from recon.data.io.header_checks import (
    FACE_INDEX_PROPERTIES,
    MAX_MESH_PARTS,
    check_glb,
    check_obj,
    check_ply,
    check_stl,
)
from recon.data.io.image_checks import check_jpeg_scans
from recon.data.io.surface_sampling import (
    Surface,
    check_textures,
    make_cloud,
    normalize_colors,
    sample_surfaces,
)

MESH_SUFFIXES = (".ply", ".obj", ".off", ".stl", ".glb")
MAX_MESH_BYTES = 2**30
"""Bytes of the largest such file."""
MAX_SIDECAR_BYTES = 2**26
"""Bytes of the largest file beside one that is read for it."""
HEADER_CHECKS = {".glb": check_glb, ".obj": check_obj, ".stl": check_stl}


def read_mesh(path: Path, count: int) -> Cloud:
    """Read points, or draw `count` from surfaces; raise ValueError that names a bad file."""
    check_file(path, MAX_MESH_BYTES)
    if path.suffix.lower() == ".ply":
        return _read_ply(path, count)
    with wrap_read_errors(path, "shape"):
        if check := HEADER_CHECKS.get(path.suffix.lower()):
            check(path)
        parts = _off(path) if path.suffix.lower() == ".off" else _scene(path, path.suffix[1:])
    surfaces = [Surface(p) for p in parts if isinstance(p, Trimesh) and len(p.faces)]
    if surfaces:
        return sample_surfaces(surfaces, count, str(path), path.name)
    clouds = [p for p in parts if isinstance(p, Trimesh | PointCloud) and len(p.vertices)]
    if not clouds:
        raise ValueError(f"{path}: holds neither faces nor points: {COPY_AGAIN_HINT}")
    points = np.concatenate([np.asarray(cloud.vertices) for cloud in clouds])
    colors = [_vertex_colors(cloud) for cloud in clouds]
    painted = [color for color in colors if color is not None]
    whole = np.concatenate(painted) if len(painted) == len(clouds) else None
    return make_cloud(points, str(path), None, whole)


class _Beside(FilePathResolver):
    """Give trimesh the materials and textures beside a mesh, where they are files of a size.

    Each is read anew for each material: all together have a size, and a number. trimesh goes on
    without what it cannot get, so that `check` raises ValueError where there was too much.
    """

    taken = count = 0

    def get(self, name: str) -> bytes:
        self.check()
        content: bytes = super().get(name)
        self.taken, self.count = self.taken + len(content), self.count + 1
        check_jpeg_scans(content)
        return content

    def check(self) -> None:
        if self.taken > 4 * MAX_SIDECAR_BYTES or self.count > MAX_MESH_PARTS:
            raise ValueError(f"it reads {self.count} files beside it, of {self.taken:,} bytes")

    def absolute(self, name: str) -> Path:
        path: Path = super().absolute(name)
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_SIDECAR_BYTES):
            raise ValueError(f"{name}: no plain file of at most {MAX_SIDECAR_BYTES:,} bytes")
        return path


def _scene(source: Path | io.BytesIO, kind: str) -> list[Any]:
    """Return the parts of a scene in its coordinates; nothing is merged or cleaned."""
    beside = _Beside(source) if isinstance(source, Path) else None
    scene = load_scene(source, file_type=kind.lower(), process=False, resolver=beside)
    if beside is not None:
        beside.check()
    check_textures([getattr(geometry, "visual", None) for geometry in scene.geometry.values()])
    parts = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        parts.append(_copied(scene.geometry[name]).apply_transform(transform))
    return parts


def _copied(geometry: Any) -> Any:
    """Copy a part, but for its textures: each copy would unpack all of them."""
    if not isinstance(geometry, Trimesh):
        return geometry.copy()
    part = geometry.copy(include_visual=False)
    part.visual = geometry.visual
    return part


def _off(path: Path) -> list[Any]:
    """Read an .off file without its comments; raise ValueError where lines are missing."""
    lines = [line.partition(b"#")[0].strip() for line in path.read_bytes().splitlines()]
    content = b"\n".join(line for line in lines if line)
    if content[:4].upper() == b"4OFF":
        raise ValueError("its vertices have four coordinates")
    if not (
        head := re.match(rb"([A-Z0-9]*OFF)?\s*(\d+)\s+(\d+)(?:\s+\d+)?\s*(?:\n|$)", content, re.I)
    ):
        raise ValueError("it does not begin with OFF and the numbers of vertices and faces")
    announced = int(head[2]) + int(head[3])
    rows = content[head.end() :].split(b"\n")
    if len(rows) < announced:
        raise ValueError(f"it ends after {len(rows)} of {announced} lines")
    if len(rows) > announced:
        raise ValueError(f"it has {len(rows)} lines, {announced} are announced")
    faces = rows[int(head[2]) :]
    wrong = (face for face in faces if not 0 <= int((words := face.split())[0]) < len(words))
    if short := next(wrong, None):
        raise ValueError(f"a face has fewer corners than it announces: {short[:50]!r}")
    return _scene(io.BytesIO(content), "off")


def _vertex_colors(part: Any) -> np.ndarray | None:
    """Return the colours that a cloud's file gives; trimesh has a grey for those without."""
    if isinstance(part, PointCloud):
        colors = part.colors
    else:
        colors = part.visual.vertex_colors if part.visual.defined else ()
    given = len(colors) == len(part.vertices) and np.ptp(np.asarray(colors), axis=0).any()
    return np.asarray(colors)[:, :3] if given else None


def _read_ply(path: Path, count: int) -> Cloud:
    with wrap_read_errors(path, "shape"):
        check_ply(path)
        ply = _open_ply(path)
        if "vertex" not in ply:
            raise ValueError(f"it has no vertices, but {[e.name for e in ply.elements]}")
        vertex = ply["vertex"].data
        points = _columns(vertex, "x", "y", "z")
        faces = _triangles(ply["face"]) if "face" in ply else np.empty((0, 3), np.int64)
    if points is None:
        raise ValueError(f"{path}: its vertices have no x, y and z: {COPY_AGAIN_HINT}")
    colors = _columns(vertex, "red", "green", "blue")
    if colors is None:
        colors = _columns(vertex, "diffuse_red", "diffuse_green", "diffuse_blue")
    if not len(faces):
        return make_cloud(points, str(path), _columns(vertex, "nx", "ny", "nz"), colors)
    if colors is not None:
        colors = normalize_colors(colors, str(path))
        colors = colors if colors.dtype == np.uint8 else 255 * colors
    if faces.min() < 0 or faces.max() >= len(points):
        raise ValueError(f"{path}: faces name vertices that are not there: {COPY_AGAIN_HINT}")
    mesh = Trimesh(points.astype(np.float64), faces, process=False)
    return sample_surfaces([Surface(mesh, colors)], count, str(path), path.name)


def _open_ply(path: Path) -> PlyData:
    with path.open("rb") as file:
        head = file.read(2**16).partition(b"end_header")[0]
    names = [name for name in FACE_INDEX_PROPERTIES if re.search(rb"\s%s\s" % name.encode(), head)]
    if names and head.isascii():  # triangles are read many times faster when they are announced
        with suppress(PlyParseError):
            return PlyData.read(path, known_list_len={"face": {names[0]: 3}})
    # From memory: of a file it would allocate what a list's length announces.
    # Comments may be in any language, and plyfile takes none but English ones.
    plain = re.sub(rb"[\x80-\xff]", b"?", head)
    return PlyData.read(io.BytesIO(plain + path.read_bytes()[len(head) :]))


def _columns(vertex: np.ndarray, *names: str) -> np.ndarray | None:
    """Put properties side by side in a type that holds them all, None where one is missing."""
    if not set(names) <= set(vertex.dtype.names or ()):
        return None
    return np.stack([vertex[name] for name in names], 1)


def _triangles(face: Any) -> Int[np.ndarray, "f 3"]:
    """Return the faces, those of more than three corners cut into fans."""
    lists = [p.name for p in face.properties if isinstance(p, PlyListProperty)]
    name = next((n for n in FACE_INDEX_PROPERTIES if n in lists), None)
    if name is None:
        raise ValueError(f"its faces have no {' or '.join(FACE_INDEX_PROPERTIES)}")
    corners = face.data[name]
    if corners.dtype != object:
        return corners.reshape(-1, corners.shape[-1] if corners.ndim > 1 else 3).astype(np.int64)
    return _fans([np.asarray(polygon, dtype=np.int64) for polygon in corners])


def _fans(polygons: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, "f 3"]:
    fans = [
        np.stack([np.full(len(p) - 2, p[0]), p[1:-1], p[2:]], 1) for p in polygons if len(p) > 2
    ]
    return np.concatenate(fans) if fans else np.empty((0, 3), dtype=np.int64)
