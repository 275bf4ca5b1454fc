"""Read one shape from any of the formats that people keep shapes in."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.data.dataset import Cloud
from recon.data.io.arrays import read_npy, read_npz
from recon.data.io.file_checks import check_file
from recon.data.io.las import read_las
from recon.data.io.mesh import MESH_SUFFIXES, read_mesh
from recon.data.io.surface_sampling import make_cloud
from recon.data.io.text_table import read_column_names, read_table

ARRAY_NAMES: Mapping[str, tuple[str, ...]] = {
    "points": ("points", "xyz", "pos", "coords", "coord", "vertices", "pc", "data", "arr_0"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "rgb"),
}
MAX_COLUMNS = 256
"""Columns of a cloud: more are clouds on their side."""
COLUMN_NAMES = {
    "points": (("x", "y", "z"),),
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "colors": (("r", "g", "b"), ("red", "green", "blue")),
}


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


def _by_place(table: Float[np.ndarray, "n c"], source: str) -> Cloud:
    """Tell unnamed columns after x y z apart: unit vectors are normals, the rest colours."""
    if table.shape[1] > (9 if len(table) == 3 else MAX_COLUMNS):
        raise ValueError(f"{source}: has shape {table.shape}, expected (N, 3): transpose it")
    points, rest = table[:, :3], table[:, 3:]
    if rest.shape[1] == 4:  # as scanners write it: an intensity before the colour
        rest = rest[:, 1:]
    if rest.shape[1] < 3:
        return make_cloud(points, source)
    first, second = rest[:, :3], rest[:, 3:6] if rest.shape[1] >= 6 else None
    unit = np.abs(np.linalg.norm(first, axis=1) - 1) < 0.02
    # Some faces have no normal: a few rows of zeros are no colours yet.
    if unit.mean() > 0.9 and np.abs(first).max() <= 1.02:
        return make_cloud(points, source, first, second)
    return make_cloud(points, source, second, first)


def _by_name(table: Float[np.ndarray, "n c"], names: Sequence[str], source: str) -> Cloud:
    """Pick the columns that a head names; raise ValueError where it names no coordinates."""
    places = {name.lower(): place for place, name in enumerate(names)}
    found = {
        field: next((table[:, [places[n] for n in c]] for c in all_ if set(c) <= set(places)), None)
        for field, all_ in COLUMN_NAMES.items()
    }
    if found["points"] is None:
        return _by_place(table, source)
    return make_cloud(found["points"], source, found["normals"], found["colors"])


def _read_text(path: Path, count: int) -> Cloud:
    table, names = read_table(path), read_column_names(path)
    named = len(names) == table.shape[1]
    return _by_name(table, names, str(path)) if named else _by_place(table, str(path))


def _named(held: Mapping[str, Any], source: str) -> Cloud:
    """Find coordinates, normals and colours among named arrays."""
    # Of a pickle: only arrays are looked into, for others may hold without end.
    plain = {k: v for k, v in held.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iuf"}
    names = {str(name).lower(): value for name, value in plain.items()}
    found = {
        field: next((names[name] for name in aliases if name in names), None)
        for field, aliases in ARRAY_NAMES.items()
    }
    if found["points"] is None:
        raise ValueError(
            f"{source}: has the arrays {sorted(names)!s:.500}, none is called "
            f"{' or '.join(ARRAY_NAMES['points'][:2])}: rename the one with coordinates"
        )
    if found["normals"] is None and found["colors"] is None:
        return _array(found["points"], source)
    return make_cloud(found["points"], source, found["normals"], found["colors"])


def _array(held: Any, source: str) -> Cloud:
    wide = isinstance(held, np.ndarray) and held.ndim == 2 and held.shape[1] > 3
    if wide and held.dtype.kind in "iuf" and len(held):
        return _by_place(held, source)
    return make_cloud(held, source)


def _read_npy(path: Path, count: int) -> Cloud:
    held = read_npy(path)
    return _named(held, str(path)) if isinstance(held, dict) else _array(held, str(path))


def _read_npz(path: Path, count: int) -> Cloud:
    return _named(read_npz(path), str(path))


READERS: Mapping[str, Callable[[Path, int], Cloud]] = {
    **dict.fromkeys(MESH_SUFFIXES, read_mesh),
    **dict.fromkeys((".las", ".laz"), read_las),
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".xyz": _read_text,
}


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Walk a folder, links too, in order: folders with their files; hidden ones are left out.

    Raises OSError for a folder that cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=stop):
        about = os.stat(folder)
        if (place := (about.st_dev, about.st_ino)) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def find_shape_files(pattern: str | Path) -> dict[Path, Path]:
    """Find shapes by a file's name, a folder or a pattern; return files, and their places in it.

    Raises FileNotFoundError where nothing is found.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        names = [folder / name for folder, found in walk_folders(path) for name in found]
        places = {name: name.relative_to(path) for name in names if name.suffix.lower() in READERS}
    else:
        files = (
            [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        )
        places = {file: Path(file.name) for file in files if file.is_file()}
    if not places:
        known = ", ".join(sorted(READERS))
        raise FileNotFoundError(f"{pattern}: no such file, nor a folder with {known} in it")
    return places
