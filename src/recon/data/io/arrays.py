"""Read single files safely: every bad one ends in one message that names it and the cure."""

import io
import json
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from recon.data.io.image_checks import IMAGE_FORMATS, check_jpeg_scans, load_rgb
from recon.data.io.safe_pickle import unpickle
from recon.utils.printable import check_printable

MAX_FILE_BYTES = 4 * 2**30
"""Bytes of the largest file that is read as one cloud."""
MAX_JSON_BYTES, MAX_PATH_CHARS = 2**28, 4096
"""Bytes of the largest JSON file, and of the longest path in a list."""
MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO = 2**26, 100
"""Bytes that any archive may unpack to, and how many times its size a larger one may."""
COPY_AGAIN_HINT = "copy it again or take it off the list"


@contextmanager
def wrap_read_errors(path: Path | str, kind: str) -> Iterator[None]:
    """Raise what goes wrong inside as ValueError that names the file and what it should be.

    Faulty files end in any kind of error of the many parsers: all are caught but a missing file's.
    """
    try:
        yield
    except Exception as error:
        why = summarize_error(error)
        if isinstance(error, FileNotFoundError) and str(path) in str(error):
            raise
        if why.startswith(str(path)):
            raise ValueError(why) from error
        raise ValueError(f"{path}: not a readable {kind} ({why}): {COPY_AGAIN_HINT}") from error


def summarize_error(error: Exception) -> str:
    """Return an error's message in one short line; what a file made of it may not be printable."""
    try:
        text = str(error).strip().split("\n")[0][:500]
    except Exception:
        text = ""
    return text or type(error).__name__


def check_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Path:
    """Return the path; raise FileNotFoundError or ValueError where nothing sensible is there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found: {COPY_AGAIN_HINT}")
    if (size := path.stat().st_size) == 0:
        raise ValueError(f"{path}: is empty (0 bytes): {COPY_AGAIN_HINT}")
    if size > max_bytes:
        raise ValueError(
            f"{path}: has {size / 2**30:.1f} GiB, more than the {max_bytes / 2**30:.1f} that "
            f"are read "
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
        raise ValueError(f"{source}: has no points: {COPY_AGAIN_HINT}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is found below
        cloud = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    if not (finite := np.isfinite(cloud).all(1)).all():
        raise ValueError(
            f"{source}: {int((~finite).sum())} of {len(cloud)} points are NaN or infinite: "
            "remove those points or take the file off the list"
        )
    return cloud


def check_labels(
    labels: object, num_labels: int, num_classes: int, source: str
) -> Int[np.ndarray, " n"]:
    """Return labels as int64; raise ValueError for a wrong number of them or one out of range."""
    found = np.asarray(labels)
    if found.dtype.kind not in "iuf" or found.size != num_labels:
        raise ValueError(f"{source}: has {found.size} labels for {num_labels}: {COPY_AGAIN_HINT}")
    found = found.reshape(-1)
    with np.errstate(invalid="ignore"):
        whole = found.astype(np.int64)
    wrong = np.flatnonzero((whole != found) | (whole < 0) | (whole >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{source}: label {found[wrong[0]]} (number {wrong[0]}) is none of the {num_classes} "
            f"classes 0 to {num_classes - 1}: {COPY_AGAIN_HINT}"
        )
    return whole


def to_scalar(value: object) -> int | float:
    """Return a number, or the one of an array; raise ValueError for anything else."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1 and value.dtype.kind in "iuf":
        return value.item()
    if isinstance(value, int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is no number")


def read_npy(path: Path) -> Any:
    """Read one .npy file; object arrays come from `unpickle`, as what they hold."""
    size = check_file(path).stat().st_size
    with wrap_read_errors(path, "array"), path.open("rb") as file:
        held = _npy(file, str(path), size)
        if (more := size - file.tell()) > 0:
            raise ValueError(f"{more:,} bytes follow what it announces")
        return held


def _npy(file: io.BufferedIOBase, source: str, size: int) -> Any:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"it has version {version} of the format, which there is not")
    if version[0] == 1:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        held = unpickle(file, source)
        return held.item() if isinstance(held, np.ndarray) and held.ndim == 0 else held
    count = int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or count * dtype.itemsize > size - file.tell():
        raise ValueError(f"{shape} of {dtype} are announced, the file ends before")
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype).copy()
    return flat.reshape(shape, order="F" if fortran else "C")


def read_npz(path: Path) -> dict[str, Any]:
    """Read the arrays of one .npz file; object arrays come from `unpickle`, as what they hold."""
    check_file(path)
    with wrap_read_errors(path, "archive"), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if len({member.filename for member in members}) < len(members):
            raise ValueError("it has two arrays of one name")
        if not {m.compress_type for m in members} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("it is packed as numpy does not pack")  # others unpack without end
        allowed = min(MAX_FILE_BYTES, max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * path.stat().st_size))
        if (total := sum(member.file_size for member in members)) > allowed:
            raise ValueError(f"unpacks to {total:,} bytes, {allowed:,} are allowed")
        return {
            member.filename.removesuffix(".npy"): _npy(
                io.BytesIO(_unpacked(archive, member)), str(path), member.file_size
            )
            for member in members
        }


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read a member, no more than it announces: its packed content may hold any amount."""
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} has another size than announced")
    return content


def read_json(path: Path) -> Any:
    """Read one JSON file; raise ValueError or FileNotFoundError that names it."""
    check_file(path, MAX_JSON_BYTES)
    with wrap_read_errors(path, "JSON file"):
        content = path.read_bytes()
        held = json.loads(content)
        if b"\\ud" in content.lower():
            json.dumps(held, ensure_ascii=False).encode()  # half a character cannot be written
        return held


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list that are not empty; raise ValueError that names the file."""
    check_file(path)
    with wrap_read_errors(path, "list of names"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    check_printable((part for name in names for part in name.split("\t")), path)
    return names


def decode_image(content: bytes, source: Path | str) -> Image.Image:
    """Decode a picture to RGB; raise ValueError that names its source."""
    with wrap_read_errors(source, "picture"):
        check_jpeg_scans(content)
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            return load_rgb(image)


def resolve_inside(root: Path, name: str, source: Path | str) -> Path:
    """Return the path of a listed name below `root`; raise ValueError where it leads elsewhere."""
    if len(name) > MAX_PATH_CHARS:
        raise ValueError(f"{source}: lists a path of {len(name):,} characters: {name[:50]!r}...")
    place = posixpath.normpath(name.replace("\\", "/"))
    outside = posixpath.isabs(place) or place.split("/")[0] == ".." or ":" in place.split("/")[0]
    if not name or "\0" in name or outside:
        raise ValueError(
            f"{source}: lists {name!r}, which is no path inside {root}: name files relative to it"
        )
    return root / place
