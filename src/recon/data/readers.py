"""Read single files safely: every bad one ends in one message that names it and the cure."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from recon.data.pickles import unpickle

LIMIT = 4 * 2**30
"""Bytes of the largest file that is read as one cloud."""
AGAIN = "copy it again or take it off the list"
# Commas and semicolons separate; so does each byte that no text holds, as one known file has it.
SEPARATORS = bytes(
    0x20 if code in b",;" or code >= 0x7F or (code < 0x20 and code not in b"\t\n\r") else code
    for code in range(256)
)


@contextmanager
def naming(path: Path | str, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise what goes wrong inside as ValueError that names the file and what it should be."""
    try:
        yield
    except (ValueError, EOFError, MemoryError, *errors) as error:  # type: ignore[misc]
        if str(error).startswith(str(path)):
            raise
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable {kind} ({why}): {AGAIN}") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: not a readable {kind} ({error}): {AGAIN}") from error


def check_file(path: Path, limit: int = LIMIT) -> Path:
    """Return the path; raise FileNotFoundError or ValueError where nothing sensible is there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found: {AGAIN}")
    if (size := path.stat().st_size) == 0:
        raise ValueError(f"{path}: is empty (0 bytes): {AGAIN}")
    if size > limit:
        raise ValueError(
            f"{path}: has {size / 2**30:.1f} GiB, more than the {limit / 2**30:.1f} that are read "
            "at once: split it into smaller files"
        )
    return path


def check_cloud(points: object, source: str) -> Float[np.ndarray, "n 3"]:
    """Return (N, 3) float32 coordinates; raise ValueError that names the source of bad ones."""
    if not isinstance(points, np.ndarray):
        raise ValueError(
            f"{source}: holds a {type(points).__name__}, expected an array of numbers of shape "
            "(N, 3): convert it or take it off the list"
        )
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "iuf":
        raise ValueError(
            f"{source}: holds {points.dtype} of shape {points.shape}, "
            "expected numbers of shape (N, 3): convert it or take it off the list"
        )
    if not len(points):
        raise ValueError(f"{source}: has no points: {AGAIN}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is found below
        cloud = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    if not (finite := np.isfinite(cloud).all(1)).all():
        raise ValueError(
            f"{source}: {int((~finite).sum())} of {len(cloud)} points are NaN or infinite: "
            "remove those points or take the file off the list"
        )
    return cloud


def check_labels(labels: object, count: int, classes: int, source: str) -> Int[np.ndarray, " n"]:
    """Return labels as int64; raise ValueError for a wrong number of them or one out of range."""
    found = np.asarray(labels)
    if found.dtype.kind not in "iuf" or found.size != count:
        raise ValueError(f"{source}: has {found.size} labels for {count}: {AGAIN}")
    found = found.reshape(-1)
    with np.errstate(invalid="ignore"):
        whole = found.astype(np.int64)
    wrong = np.flatnonzero((whole != found) | (whole < 0) | (whole >= classes))
    if len(wrong):
        raise ValueError(
            f"{source}: label {found[wrong[0]]} (number {wrong[0]}) is none of the {classes} "
            f"classes 0 to {classes - 1}: {AGAIN}"
        )
    return whole


def read_npy(path: Path) -> Any:
    """Read one .npy file; object arrays come from `unpickle`, as what they hold."""
    check_file(path)
    with naming(path, "array"), path.open("rb") as file:
        return _npy(file, str(path), path.stat().st_size)


def _npy(file: io.BufferedIOBase, source: str, size: int) -> Any:
    version = np.lib.format.read_magic(file)
    if version[0] == 1:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        held = unpickle(file, source)
        return held.item() if isinstance(held, np.ndarray) and held.ndim == 0 else held
    count = int(np.prod(shape, dtype=object))
    if count * dtype.itemsize > size - file.tell():
        raise ValueError(f"{shape} of {dtype} are announced, the file ends before")
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype).copy()
    return flat.reshape(shape, order="F" if fortran else "C")


def read_npz(path: Path) -> dict[str, Any]:
    """Read the arrays of one .npz file; object arrays come from `unpickle`, as what they hold."""
    check_file(path)
    errors = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
    with naming(path, "archive", *errors), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if (total := sum(member.file_size for member in members)) > LIMIT:
            raise ValueError(f"unpacks to {total / 2**30:.1f} GiB, {LIMIT >> 30} are allowed")
        return {
            member.filename.removesuffix(".npy"): _npy(
                io.BytesIO(archive.read(member)), str(path), member.file_size
            )
            for member in members
        }


def read_table(path: Path, columns: Sequence[int] = ()) -> Float[np.ndarray, "n c"]:
    """Read a text file of numbers, separated by blanks, commas or semicolons, float64.

    A first line of names, or of the number of points alone, is skipped. `columns` lists how many
    there may be. Raises ValueError that names the file and the line.
    """
    content = check_file(path).read_bytes().translate(SEPARATORS)
    head, _, rest = content.partition(b"\n")
    words = head.split()
    numbers = _numbers(words)
    if not numbers or (len(words) == 1 and len(rest.partition(b"\n")[0].split()) > 1):
        content = content if words[:1] and words[0].startswith(b"#") else rest
    with naming(path, "table of numbers", UserWarning):
        if not content.strip():
            raise ValueError("no lines of numbers")
        table = np.loadtxt(io.BytesIO(content), ndmin=2)
    if columns and table.shape[1] not in columns:
        expected = " or ".join(map(str, columns))
        raise ValueError(f"{path}: has {table.shape[1]} columns, expected {expected}: {AGAIN}")
    return table


def _numbers(words: Sequence[bytes]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True


def read_json(path: Path) -> Any:
    """Read one JSON file; raise ValueError or FileNotFoundError that names it."""
    check_file(path)
    with naming(path, "JSON file", RecursionError):
        return json.loads(path.read_bytes())


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list that are not empty; raise ValueError that names the file."""
    check_file(path)
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a list of names ({error}): copy the file again") from error
    return [line.strip() for line in lines if line.strip()]


def decode_image(content: bytes, source: Path | str) -> Image.Image:
    """Decode a picture to RGB; raise ValueError that names its source."""
    errors = (Image.DecompressionBombError, SyntaxError)
    with naming(source, "picture", *errors), Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def inside(root: Path, name: str, source: Path | str) -> Path:
    """Return the path of a listed name below `root`; raise ValueError where it leads elsewhere."""
    place = os.path.normpath(name.replace("\\", "/"))
    if not name or "\0" in name or os.path.isabs(place) or place.split("/")[0] == "..":
        raise ValueError(
            f"{source}: lists {name!r}, which is no path inside {root}: name files relative to it"
        )
    return root / place
