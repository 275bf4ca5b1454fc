"""Read a point cloud from a file of any supported format, and find such files in folders."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from recon.data.dataset import Cloud
from recon.data.io.file_checks import check_file
from recon.data.io.las import read_las
from recon.data.io.mesh import build_mesh_cloud
from recon.data.io.meshes.exchange.readers import EXCHANGE_READERS
from recon.data.io.meshes.gltf.reader import read_gltf
from recon.data.io.meshes.obj import read_obj
from recon.data.io.meshes.off import read_off
from recon.data.io.meshes.ply import read_ply
from recon.data.io.meshes.stl import read_stl
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.cloud import build_cloud
from recon.data.io.points.e57 import read_e57
from recon.data.io.points.pcd import read_pcd
from recon.data.io.points.ptx import read_ptx
from recon.data.io.points.ros import is_recording, read_ros
from recon.data.io.points.table import DEFAULT_OPTIONS, PointTable, ReadOptions
from recon.data.io.points.tables import (
    is_point_binary,
    read_binary_points,
    read_npy_points,
    read_npz_points,
)
from recon.data.io.points.text_head import is_point_text
from recon.data.io.points.texts import SNIFFED_SUFFIXES, TEXT_SUFFIXES, read_text_points


def read_shape(path: Path, count: int = 8192, options: ReadOptions = DEFAULT_OPTIONS) -> Cloud:
    """Read a cloud, or sample `count` points by area from the surface of a mesh.

    The file's extension selects one of `READERS`. Normals and colors are kept where the file has
    them; meshes give the normals of their faces. The same file always gives the same points.
    Coordinates far from the origin are shifted near it, since float32 would round them;
    `Cloud.origin` is the shift. `Cloud.notes` tells what was omitted or assumed. Raises ValueError
    or FileNotFoundError that names the file.
    """
    content = read_content(path, options)
    if isinstance(content, PointTable):
        return build_cloud(content, str(path), options)
    return build_mesh_cloud(content, count, path, options)


def read_content(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> PointTable | MeshContent:
    """Read a file's points, or its surfaces, in its own units, types and order.

    A folder can be a ROS 2 recording. Raises ValueError or FileNotFoundError that names the file.
    """
    if path.is_dir() and is_recording(path):
        return read_ros(path, options)
    if path.suffix.lower() not in READERS:
        raise ValueError(
            f"{path}: unknown file extension: convert it to one of {', '.join(sorted(READERS))}"
        )
    return READERS[path.suffix.lower()](check_file(path), options)


READERS: Mapping[str, Callable[[Path, ReadOptions], PointTable | MeshContent]] = {
    ".obj": read_obj,
    **dict.fromkeys((".glb", ".gltf"), read_gltf),
    ".off": read_off,
    ".ply": read_ply,
    ".stl": read_stl,
    **EXCHANGE_READERS,
    **dict.fromkeys((".las", ".laz"), read_las),
    **dict.fromkeys((".bag", ".db3", ".mcap"), read_ros),
    ".e57": read_e57,
    ".pcd": read_pcd,
    ".npy": read_npy_points,
    ".npz": read_npz_points,
    **dict.fromkeys(TEXT_SUFFIXES, read_text_points),
    ".ptx": read_ptx,
    ".bin": read_binary_points,
}
"""Reader of each file extension."""


COMPANION_SUFFIXES = frozenset(
    (
        *(".mtl", ".bin", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".tga", ".dds", ".ktx2", ".svg", ".csv", ".tsv", ".parquet", ".json", ".jsonl"),
        *(".yaml", ".yml", ".xml", ".txt", ".md", ".rst", ".html", ".pdf", ".log", ".license"),
        *("license", "readme", "makefile", ".ini", ".toml", ".py", ".sh", ".ckpt", ".pth"),
    )
)
"""Extensions of files that accompany shapes: materials, images, tables and texts."""
MAX_LISTED = 8
"""Maximum number of extensions that a message lists."""


def is_shape_file(path: Path) -> bool:
    """Return whether a file of a folder is a shape, by its extension, and of a text by its content.

    Texts are shapes if they begin with rows of numbers. A .bin file is none beside a .gltf file.
    """
    suffix = path.suffix.lower()
    if suffix in SNIFFED_SUFFIXES:
        return is_point_text(path)
    if suffix == ".bin":
        return is_point_binary(path) and not any(path.parent.glob("*.gltf"))
    return suffix in READERS


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield all folders below `root` with their file names, sorted, without hidden ones.

    Follows symbolic links, but visits each folder once. Raises OSError for an unreadable folder.
    """

    def raise_error(error: OSError) -> None:
        raise error

    visited = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=raise_error):
        status = os.stat(folder)
        if (identity := (status.st_dev, status.st_ino)) in visited:  # links may form a cycle
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def describe_other_files(paths: Iterable[Path]) -> str | None:
    """Describe the files of a folder that are not read, by extension; None if there are none.

    Images, tables, texts and other companions of shapes are not counted.
    """
    suffixes = Counter(path.suffix.lower() or path.name.lower() for path in paths)
    others = {s: n for s, n in suffixes.items() if s not in READERS and s not in COMPANION_SUFFIXES}
    if not others:
        return None
    listed = ", ".join(
        f"{n:,} {s}" for s, n in sorted(others.items(), key=lambda item: -item[1])[:MAX_LISTED]
    )
    more = ", ..." if len(others) > MAX_LISTED else ""
    total = sum(others.values())
    return (
        f"{total:,} {'file is' if total == 1 else 'files are'} of other formats and not read: "
        f"{listed}{more}"
    )


def find_shape_files(pattern: str | Path) -> dict[Path, Path]:
    """Find shapes by a file's path, a folder, a ROS 2 recording's folder or a glob pattern.

    Returns each file with its relative path in the folder, or its name. Raises FileNotFoundError
    without any match.
    """
    path = Path(pattern).expanduser()
    if path.is_dir() and is_recording(path):
        return {path: Path(path.resolve().name)}
    if path.is_dir():
        files = [folder / name for folder, names in walk_folders(path) for name in names]
        relative_paths = {file: file.relative_to(path) for file in files if is_shape_file(file)}
        if relative_paths and (note := describe_other_files(files)):
            warnings.warn(f"{path}: {note}", stacklevel=2)
    else:
        files = (
            [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        )
        relative_paths = {file: Path(file.name) for file in files if file.is_file()}
    if not relative_paths and path.is_dir():
        note = describe_other_files(files) or "it has no files that may be shapes"
        raise FileNotFoundError(
            f"{pattern}: {note}: supported formats are {', '.join(sorted(READERS))}"
        )
    if not relative_paths:
        raise FileNotFoundError(f"{pattern}: no such file or folder: check the path")
    return relative_paths
