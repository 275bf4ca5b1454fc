"""Read arrays (.npy, .npz), JSON files and lists of names; nothing in them is executed."""

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
    check_file,
    wrap_read_errors,
)
from recon.data.io.safe_pickle import unpickle
from recon.utils.printable import check_printable

MAX_JSON_BYTES = 2**28
"""Maximum size of a JSON file, in bytes."""


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
