"""Files that are whole or not there, and folders that one program writes at a time."""

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_FILE = ".lock"


def write_atomic(
    path: Path,
    content: bytes | memoryview,
    hint: str = "and run the same command",
    backup: Path | None = None,
) -> None:
    """Write a file in one step, as `whole` does."""
    with atomic_path(path, hint, backup) as part:
        part.write_bytes(content)


@contextmanager
def atomic_path(
    path: Path, hint: str = "and run the same command", backup: Path | None = None
) -> Iterator[Path]:
    """Yield a place to write a file to, which then takes its name in one step.

    A killed program or machine leaves the old file, or none: the content is on the disk before the
    name points to it. `earlier` is a name that the old one keeps. Raises ValueError that names the
    file where there is no room or no permission; what was there stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if backup is not None:
            _keep(path, backup)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}): make room, or choose "
            f"another folder, {hint}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def write_lock(target: Path, hint: str, lock_path: Path | None = None) -> Iterator[None]:
    """Let no second program write into a folder; raise ValueError that says who does.

    Of a file, `lock` is beside it. The lock is the process's own: it goes with it, however it
    ends, and workers do not hold it. Not on Windows, which has none of the kind.
    """
    if sys.platform == "win32":
        yield
        return
    path = lock_path or target / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    number = _lock(path, target, hint)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(number)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if sys.platform == "win32":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # network file systems may know no such thing
            os.fsync(number)
    finally:
        os.close(number)


def _keep(path: Path, earlier: Path) -> None:
    """Let a second name point to a file, in one step, before the first is written anew."""
    if not path.exists():
        return
    link = earlier.with_name(f"{earlier.name}.{os.getpid()}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links: the file itself moves
        path.replace(earlier)
        return
    link.replace(earlier)


def _lock(path: Path, target: Path, cure: str) -> int:
    """Open and lock a file, the one that has this name; return its number."""
    import fcntl

    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            who = os.read(number, 200).decode("utf-8", "replace").strip() or "another program"
            os.close(number)
            raise ValueError(f"{target}: is being written by {who}: {cure}") from error
        except OSError as error:
            warnings.warn(f"{target}: cannot be locked ({error.strerror})", stacklevel=4)
            return number
        if path.exists() and os.path.samestat(os.fstat(number), path.stat()):
            break
        os.close(number)  # another program ended meanwhile, and took its file along
    os.ftruncate(number, 0)
    os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return number
