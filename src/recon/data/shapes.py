"""Read one shape from any of the formats that people keep shapes in."""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from trimesh import Geometry, PointCloud, Trimesh, load_scene
from trimesh.sample import sample_surface

from recon.data.dataset import Cloud
from recon.data.readers import (
    AGAIN,
    check_cloud,
    check_file,
    naming,
    read_npy,
    read_npz,
    read_table,
)

FIELDS: Mapping[str, tuple[str, ...]] = {
    "points": ("points", "xyz", "pos", "coords", "coord", "vertices", "pc", "data", "arr_0"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "rgb"),
}
MESH_LIMIT = 2**30


def read_shape(path: Path, count: int = 8192) -> Cloud:
    """Read a cloud, or `count` points drawn by area from the surface of a mesh.

    Formats are those of `READERS`, by the file's ending. Colours and normals are kept where they
    exist; meshes give the normals of their faces. The same file gives the same points, and
    coordinates far from the origin are shifted near it, for float32 could not hold them.
    Raises ValueError or FileNotFoundError that names a bad file.
    """
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: unknown ending, known are {', '.join(sorted(READERS))}")
    return READERS[path.suffix.lower()](check_file(path), count)


def _near_origin(points: np.ndarray) -> np.ndarray:
    """Shift float64 coordinates whose resolution float32 would lose, by whole units."""
    if points.dtype != np.float64 or not len(points) or not np.isfinite(points).all():
        return points
    low, high = points.min(0), points.max(0)
    far = np.abs(points).max() > 1e4 * max(float((high - low).max()), 1e-12)
    return points - np.round((low + high) / 2) if far else points


def _colors(colors: Num[np.ndarray, "n c"], source: str) -> Num[np.ndarray, "n 3"]:
    """Return RGB as bytes or as fractions; raise ValueError for values that are neither."""
    rgb = np.asarray(colors)[:, :3]
    if rgb.dtype == np.uint8:
        return rgb
    rgb = check_cloud(rgb, f"{source} (colours)")
    low, high = float(rgb.min()), float(rgb.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"{source}: its colours lie in [{low:g}, {high:g}], not in [0, 255]: {AGAIN}"
        )
    if high <= 1:
        return rgb
    return rgb.round().astype(np.uint8) if high <= 255 else (rgb / 65535).astype(np.float32)


def _cloud(points: Any, source: str, normals: Any = None, colors: Any = None) -> Cloud:
    """Check a cloud and what its points carry."""
    if isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] >= 3:
        points = _near_origin(points[:, :3])
    cloud = check_cloud(points, source)
    for name, field in (("normals", normals), ("colours", colors)):
        if field is not None and np.shape(field)[:1] != (len(cloud),):
            raise ValueError(
                f"{source}: has {name} of shape {np.shape(field)} for {len(cloud)} points: {AGAIN}"
            )
    return Cloud(
        cloud,
        None if normals is None else check_cloud(np.asarray(normals), f"{source} (normals)"),
        None if colors is None else _colors(np.asarray(colors), source),
    )


def _columns(table: Float[np.ndarray, "n c"], source: str) -> Cloud:
    """Tell the columns after x y z apart: unit vectors are normals, the rest colours."""
    points, rest = table[:, :3], table[:, 3:]
    if rest.shape[1] < 3:  # at most an intensity or a label
        return _cloud(points, source)
    first = rest[:, :3]
    unit = np.abs(np.linalg.norm(first, axis=1) - 1) < 0.02
    # Some faces have no normal: a few rows of zeros are no colours yet.
    if unit.mean() > 0.9 and np.abs(first).max() <= 1.02:
        return _cloud(points, source, first, rest[:, 3:6] if rest.shape[1] >= 6 else None)
    return _cloud(points, source, rest[:, 3:6] if rest.shape[1] >= 6 else None, first)


def _read_text(path: Path, count: int) -> Cloud:
    return _columns(read_table(path), str(path))


def _named(held: Mapping[str, Any], source: str) -> Cloud:
    """Find coordinates, normals and colours among named arrays."""
    names = {str(name).lower(): value for name, value in held.items()}
    found = {
        field: next((names[name] for name in aliases if name in names), None)
        for field, aliases in FIELDS.items()
    }
    if found["points"] is None:
        raise ValueError(
            f"{source}: has the arrays {sorted(names)}, none is called "
            f"{' or '.join(FIELDS['points'][:2])}: rename the one with coordinates"
        )
    if found["normals"] is None and found["colors"] is None:
        return _array(found["points"], source)
    return _cloud(found["points"], source, found["normals"], found["colors"])


def _array(held: Any, source: str) -> Cloud:
    if isinstance(held, np.ndarray) and held.ndim == 2 and held.shape[1] > 3:
        check_cloud(held, source)
        return _columns(held, source)
    return _cloud(held, source)


def _read_npy(path: Path, count: int) -> Cloud:
    held = read_npy(path)
    return _named(held, str(path)) if isinstance(held, dict) else _array(held, str(path))


def _read_npz(path: Path, count: int) -> Cloud:
    return _named(read_npz(path), str(path))


def _geometries(path: Path) -> Iterator[Geometry]:
    """Yield the parts of a scene in its coordinates; nothing is merged or cleaned."""
    # Faulty files end in many kinds of errors of the library's many parsers.
    with naming(path, "shape", Exception):
        scene = load_scene(path, process=False)
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            yield scene.geometry[name].copy().apply_transform(transform)


def _check_whole(path: Path) -> None:
    """Raise ValueError where a text file ends before the lines that its head announces."""
    content = path.read_bytes()
    if content.startswith(b"ply") and b"format ascii" in content[:200]:
        head, _, body = content.partition(b"end_header")
        announced = sum(int(n) for n in re.findall(rb"element \w+ (\d+)", head))
    elif found := re.match(rb"\s*OFF\s*(?:#.*\s*)*(\d+)\s+(\d+)\s+\d+", content):
        announced, body = int(found[1]) + int(found[2]), content[found.end() :]
    else:
        return
    lines = sum(bool(line.strip()) for line in body.splitlines())
    if lines < announced:
        raise ValueError(f"{path}: ends after {lines} of {announced} lines: {AGAIN}")


def _read_mesh(path: Path, count: int) -> Cloud:
    check_file(path, MESH_LIMIT)
    _check_whole(path)
    parts = [*_geometries(path)]
    meshes = [part for part in parts if isinstance(part, Trimesh) and len(part.faces)]
    if meshes:
        return _sample(meshes, count, path)
    clouds = [
        part for part in parts if isinstance(part, (Trimesh, PointCloud)) and len(part.vertices)
    ]
    if not clouds:
        raise ValueError(f"{path}: holds neither faces nor points: {AGAIN}")
    points = np.concatenate([np.asarray(cloud.vertices) for cloud in clouds])
    normals, colors = (_joined(clouds, read) for read in (_vertex_normals, _vertex_colors))
    return _cloud(points, str(path), normals, colors)


def _joined(parts: list[Any], read: Callable[[Any], Any]) -> np.ndarray | None:
    found = [read(part) for part in parts]
    return None if any(field is None for field in found) else np.concatenate(found)


def _vertex_colors(part: Any) -> np.ndarray | None:
    colors = part.colors if isinstance(part, PointCloud) else part.visual.vertex_colors
    return np.asarray(colors)[:, :3] if len(colors) == len(part.vertices) else None


def _vertex_normals(part: Any) -> np.ndarray | None:
    """Return the normals that a .ply file has beside its points."""
    raw = part.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    # Binary files give a structured array, text files a dictionary.
    there = raw.dtype.names if isinstance(raw, np.ndarray) else raw
    names = ("nx", "ny", "nz")
    if raw is None or not all(name in (there or ()) for name in names):
        return None
    return np.stack([np.asarray(raw[name]).reshape(-1) for name in names], 1)


def _texture(mesh: Trimesh) -> Any:
    material = getattr(mesh.visual, "material", None)
    names = ("baseColorTexture", "image")
    return next((found for n in names if (found := getattr(material, n, None)) is not None), None)


def _face_colors(mesh: Trimesh) -> np.ndarray:
    """Return the RGBA colour of each face: its own, or its material's."""
    material = getattr(mesh.visual, "material", None)
    if material is None:
        return np.asarray(mesh.visual.face_colors)
    return np.broadcast_to(np.asarray(material.main_color), (len(mesh.faces), 4))


def _sample(meshes: list[Trimesh], count: int, path: Path) -> Cloud:
    """Draw points by area, from all meshes of a scene together."""
    source = str(path)
    for mesh in meshes:
        check_cloud(np.asarray(mesh.vertices), source)
        if (beyond := int(np.max(mesh.faces))) >= len(mesh.vertices):
            raise ValueError(
                f"{source}: a face names vertex {beyond} of {len(mesh.vertices)}: {AGAIN}"
            )
    areas = np.array([mesh.area for mesh in meshes])
    if not np.isfinite(areas).all() or areas.sum() <= 0:
        raise ValueError(f"{source}: its faces have no area to draw points from: {AGAIN}")
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    counts = rng.multinomial(count, areas / areas.sum())
    points, normals, colors = [], [], []
    with naming(path, "shape", Exception):
        for mesh, number in zip(meshes, counts, strict=True):
            if number == 0:
                continue
            textured = _texture(mesh) is not None
            drawn = sample_surface(mesh, int(number), sample_color=textured, seed=rng)
            points.append(drawn[0])
            normals.append(mesh.face_normals[drawn[1]])
            if textured:
                colors.append(np.asarray(drawn[2])[:, :3])
            elif mesh.visual.kind is not None:
                colors.append(_face_colors(mesh)[drawn[1], :3])
    painting = np.concatenate(colors) if len(colors) == len(points) else None
    return _cloud(np.concatenate(points), source, np.concatenate(normals), painting)


def _read_las(path: Path, count: int) -> Cloud:
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: reading it needs laspy: pip install 'recon3d[las]'") from error
    with naming(path, "LAS file", Exception):
        las = laspy.read(path)
        points = np.stack([las.x, las.y, las.z], 1).astype(np.float64)
        painted = {"red", "green", "blue"} <= set(las.point_format.dimension_names)
        colors = np.stack([las.red, las.green, las.blue], 1) if painted else None
    if colors is not None and not colors.any():  # the format has them, the scanner did not
        colors = None
    return _cloud(points, str(path), None, None if colors is None else colors.astype(np.float64))


READERS: Mapping[str, Callable[[Path, int], Cloud]] = {
    **dict.fromkeys((".ply", ".obj", ".off", ".stl", ".glb"), _read_mesh),
    **dict.fromkeys((".las", ".laz"), _read_las),
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".xyz": _read_text,
}
