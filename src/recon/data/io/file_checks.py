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
"""A file may unpack to the larger of this many bytes and this many times its size."""
COPY_AGAIN_HINT = "copy it again or remove it from the list"
"""Advice about the file of one sample that a list names."""
RESTORE_HINT = "copy it again from the original data set"
"""Advice about a list, a table or any other file that the data set needs."""


class UnsupportedContentError(ValueError):
    """A file is intact but its content is not supported; the message says how to change it."""


@contextmanager
def wrap_read_errors(path: Path | str, kind: str) -> Iterator[None]:
    """Turn every error raised inside into a ValueError that names the file and its expected kind.

    Parsers fail on bad files with exceptions of any type, so all are caught. Only FileNotFoundError
    of this file passes unchanged. The message advises to copy the file again, except for an
    `UnsupportedContentError`, which has its own advice.
    """
    try:
        yield
    except Exception as error:
        reason = summarize_error(error)
        if isinstance(error, FileNotFoundError) and str(path) in str(error):
            raise
        if reason.startswith(str(path)):
            raise ValueError(reason) from error
        if isinstance(error, UnsupportedContentError):
            raise ValueError(f"{path}: not a readable {kind}: {reason}") from error
        raise ValueError(
            f"{path}: not a readable {kind} ({reason}): the file may be damaged or incomplete, "
            "copy it again"
        ) from error


def summarize_error(error: Exception) -> str:
    """Return an error's message in one line of at most 500 characters.

    The message may contain content of a bad file that cannot be converted to text: then the name of
    the error's class is returned.
    """
    try:
        text = str(error).strip().split("\n")[0][:500]
    except Exception:
        text = ""
    return text or type(error).__name__


def check_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Path:
    """Return the path of an existing file of a supported size.

    Raises FileNotFoundError for a missing file, ValueError for an empty or too large one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found: check the path or copy the file there")
    if (size := path.stat().st_size) == 0:
        raise ValueError(f"{path}: is empty (0 bytes): copy it again")
    if size > max_bytes:
        raise ValueError(
            f"{path}: has {size / 2**30:.1f} GiB, the maximum is {max_bytes / 2**30:.1f} GiB: "
            "split it into smaller files"
        )
    return path


def check_cloud(points: object, source: str) -> Float[np.ndarray, "n 3"]:
    """Return the first three columns as float32 coordinates, (N, 3).

    Raises ValueError that names `source` for other types and shapes, no points, and coordinates
    that are NaN, infinite or too large for float32.
    """
    if not isinstance(points, np.ndarray):
        raise ValueError(
            f"{source}: contains a {type(points).__name__}, expected an array of numbers of shape "
            "(N, 3): convert it to such an array"
        )
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "iuf":
        raise ValueError(
            f"{source}: contains {points.dtype} of shape {points.shape}, "
            "expected numbers of shape (N, 3): convert it to this shape"
        )
    if not len(points):
        raise ValueError(f"{source}: has no points: export it again or remove it")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, rejected below
        cloud = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    if not (finite := np.isfinite(cloud)).all():
        raise ValueError(
            f"{source}: {int((~finite.all(1)).sum())} of {len(cloud)} points are NaN or infinite: "
            "remove those points"
        )
    return cloud


def check_labels(
    labels: object, num_labels: int, num_classes: int, source: str
) -> Int[np.ndarray, " n"]:
    """Return labels as int64, (num_labels,).

    Raises ValueError for a wrong number of labels and for values other than the integers 0 to
    `num_classes` - 1.
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "iuf" or values.size != num_labels:
        raise ValueError(
            f"{source}: has {values.size} labels of type {values.dtype}, expected {num_labels} "
            "numbers: copy the file again or correct its labels"
        )
    values = values.reshape(-1)
    with np.errstate(invalid="ignore"):
        classes = values.astype(np.int64)
    invalid = np.flatnonzero((classes != values) | (classes < 0) | (classes >= num_classes))
    if len(invalid):
        raise ValueError(
            f"{source}: label {values[invalid[0]]} (number {invalid[0]}) is none of the "
            f"{num_classes} classes 0 to {num_classes - 1}: correct the labels or copy the file "
            "again"
        )
    return classes


def to_scalar(value: object) -> int | float:
    """Return a number, or the only element of a numeric array; raise ValueError otherwise."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1 and value.dtype.kind in "iuf":
        return value.item()
    if isinstance(value, int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is not a number")


def resolve_inside(root: Path, name: str, source: Path | str) -> Path:
    """Return `root / name` for a relative path listed in `source`.

    Raises ValueError for a path that is absolute, leaves `root` or is too long.
    """
    if len(name) > MAX_PATH_CHARS:
        raise ValueError(
            f"{source}: lists a path of {len(name):,} characters: {name[:50]!r}...: the maximum is "
            f"{MAX_PATH_CHARS:,}, correct this entry"
        )
    path = posixpath.normpath(name.replace("\\", "/"))
    first = path.split("/")[0]
    is_outside = posixpath.isabs(path) or first == ".." or ":" in first
    if not name or "\0" in name or is_outside:
        raise ValueError(
            f"{source}: lists {name!r}, which is not a path inside {root}: list files relative to "
            "this folder"
        )
    return root / path
