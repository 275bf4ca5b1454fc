"""Check single files and their values, and raise errors that name the file and what to do."""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

MAX_FILE_BYTES = 4 * 2**30
"""Maximum size of a file that is read as one cloud, in bytes."""
MAX_PATH_CHARS = 4096
"""Maximum length of a path in a list of files, in characters."""
MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO = 2**26, 100
"""Bytes that every compressed file may unpack to, and how many times its size a larger one may."""
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
