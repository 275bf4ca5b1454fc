"""Write files atomically, and lock folders against a second writer."""

import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_FILE = ".lock"
WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of a write that name no file."""


def write_atomic(
    path: Path,
    content: bytes | memoryview,
    hint: str = "and run the same command",
    backup: Path | None = None,
) -> None:
    """Write a file atomically; see `atomic_path`."""
    with atomic_path(path, hint, backup) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_path(
    path: Path, hint: str = "and run the same command", backup: Path | None = None
) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the block ends.

    The content is flushed to disk before the rename, so `path` is never a partial file, even if
    the machine crashes. With `backup`, the old file is kept under that name.

    Raises ValueError, which names the file and ends in `hint`, if the file cannot be written; the
    old file stays. Other errors of the block, such as of a file that it reads, are raised as they
    are.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with _explain_write_errors(path, hint):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        except OSError as error:
            if not _concerns_writing(error, temporary):
                raise
            raise _build_write_error(path, hint, error) from error
        with _explain_write_errors(path, hint):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if backup is not None:
                _link_backup(path, backup)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # e.g. a parent that is a file
            temporary.unlink(missing_ok=True)


def _concerns_writing(error: OSError, temporary: Path) -> bool:
    """Tell whether an error in the block is one of writing the file, not of reading another one."""
    if error.filename is not None:
        return os.fsdecode(error.filename) == str(temporary)
    return error.errno in WRITE_ERRNOS


def _build_write_error(path: Path, hint: str, error: OSError) -> ValueError:
    return ValueError(
        f"{path}: cannot be written ({error.strerror or error}): free disk space, check the "
        f"permissions, or choose another folder, {hint}"
    )


@contextmanager
def _explain_write_errors(path: Path, hint: str) -> Iterator[None]:
    """Turn every OSError of a block that only writes into one that names the file and the cure."""
    try:
        yield
    except OSError as error:
        raise _build_write_error(path, hint, error) from error


@contextmanager
def write_lock(target: Path, hint: str, lock_path: Path | None = None) -> Iterator[None]:
    """Keep other programs from writing into a folder while the block runs.

    The lock file is inside the folder; to lock a single file, pass a `lock_path` beside it. The
    system releases the lock when the process ends, even if it is killed; child processes do not
    inherit it. On Windows nothing is locked.

    Raises ValueError, which names the process that holds the lock and ends in `hint`.
    """
    if sys.platform == "win32":
        yield
        return
    path = lock_path or target / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire_lock(path, target, hint)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system supports it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # network file systems may not support it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link_backup(path: Path, backup: Path) -> None:
    """Make `backup` a second name of a file, atomically, before the file is replaced."""
    if not path.exists():
        return
    link = backup.with_name(f"{backup.name}.{os.getpid()}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # the file system has no hard links: move the file itself
        path.replace(backup)
        return
    link.replace(backup)


def _acquire_lock(path: Path, target: Path, hint: str) -> int:
    """Open and lock the file at `path`; return its descriptor."""
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another program"
            os.close(descriptor)
            raise ValueError(f"{target}: is being written by {owner}: {hint}") from error
        except OSError as error:
            warnings.warn(f"{target}: cannot be locked ({error.strerror})", stacklevel=4)
            return descriptor
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        # The program that held the lock has just ended and deleted the file: open a new one.
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor
