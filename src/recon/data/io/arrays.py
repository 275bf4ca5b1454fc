"""Read arrays (.npy, .npz), JSON files and lists of names without executing their content."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from recon.data.io.file_checks import (
    MAX_FILE_BYTES,
    MAX_UNPACK_RATIO,
    MIN_UNPACK_LIMIT,
    UnsupportedContentError,
    check_file,
    wrap_read_errors,
)
from recon.data.io.safe_pickle import unpickle
from recon.utils.printable import check_printable

MAX_JSON_BYTES = 2**28
"""Maximum size of a JSON file, in bytes."""


def read_npy(path: Path) -> Any:
    """Read one .npy file; an object array is read by `unpickle` and returned as its content.

    Raises ValueError or FileNotFoundError that names the file.
    """
    size = check_file(path).stat().st_size
    with wrap_read_errors(path, "array"), path.open("rb") as file:
        content = _read_npy_stream(file, str(path), size)
        if (excess := size - file.tell()) > 0:
            raise ValueError(f"{excess:,} bytes follow the end of the array")
        return content


def read_npy_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of a .npy file declares; () for an object array.

    Raises ValueError or FileNotFoundError that names the file.
    """
    check_file(path)
    with wrap_read_errors(path, "array"), path.open("rb") as file:
        shape, _, dtype = _read_npy_header(file)
        return () if dtype.hasobject else shape


def _read_npy_header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and data type of an open .npy file."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown version {version} of the .npy format")
    if version[0] == 1:
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _read_npy_stream(file: io.BufferedIOBase, source: str, size: int) -> Any:
    """Read an array from an open .npy file of `size` bytes."""
    shape, fortran, dtype = _read_npy_header(file)
    if dtype.hasobject:
        content = unpickle(file, source)
        return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    count = int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or count * dtype.itemsize > size - file.tell():
        raise ValueError(f"the header declares shape {shape} of {dtype}, the file is shorter")
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype).copy()
    return flat.reshape(shape, order="F" if fortran else "C")


def read_npz(path: Path) -> dict[str, Any]:
    """Read the arrays of one .npz file by name; object arrays are read as by `read_npy`.

    Raises ValueError or FileNotFoundError that names the file.
    """
    check_file(path)
    with wrap_read_errors(path, "archive"), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if len({member.filename for member in members}) < len(members):
            raise ValueError("it has two arrays of the same name")
        if not {m.compress_type for m in members} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            # Methods other than numpy's can unpack to far more bytes than declared.
            raise UnsupportedContentError(
                "it is compressed by a method that numpy does not use: save it with "
                "numpy.savez_compressed"
            )
        limit = min(MAX_FILE_BYTES, max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * path.stat().st_size))
        if (total := sum(member.file_size for member in members)) > limit:
            raise UnsupportedContentError(
                f"it unpacks to {total:,} bytes, the limit for its size is {limit:,}: save it with "
                "numpy.savez, without compression"
            )
        return {
            member.filename.removesuffix(".npy"): _read_npy_stream(
                io.BytesIO(_unpack_member(archive, member)), str(path), member.file_size
            )
            for member in members
        }


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Unpack a member; stop after its declared size, since it may unpack to any amount."""
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} does not have its declared size")
    return content


def read_json(path: Path) -> Any:
    """Read one JSON file; raise ValueError or FileNotFoundError that names it."""
    check_file(path, MAX_JSON_BYTES)
    with wrap_read_errors(path, "JSON file"):
        text = path.read_bytes()
        content = json.loads(text)
        if b"\\ud" in text.lower():
            # Text with lone surrogates cannot be encoded: printing or writing it would fail.
            json.dumps(content, ensure_ascii=False).encode()
        return content


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a UTF-8 text file; raise ValueError that names the file."""
    check_file(path)
    with wrap_read_errors(path, "list of names"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    check_printable((part for name in names for part in name.split("\t")), path)
    return names
