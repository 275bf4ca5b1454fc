"""Atomic writes under crashes and full disks, and locks between programs."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recon.utils import atomic_write
from recon.utils.atomic_write import LOCK_FILE, write_atomic, write_lock


def test_backup_keeps_the_previous_content(tmp_path: Path) -> None:
    path, backup = tmp_path / "last", tmp_path / "previous"
    for number in range(3):
        write_atomic(path, b"%d" % number, backup=backup)
    assert (path.read_bytes(), backup.read_bytes()) == (b"2", b"1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "previous"]


def test_backup_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(*_: object) -> None:
        raise OSError(errno.EPERM, "hard links are not supported")

    monkeypatch.setattr(os, "link", raise_error)
    test_backup_keeps_the_previous_content(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_keeps_the_old_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last"
    write_atomic(path, b"old")

    def raise_error(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic_write.os, "fsync", raise_error)
    with pytest.raises(ValueError, match=rf"last: cannot be written \({os.strerror(code)}\)"):
        write_atomic(path, b"new", backup=tmp_path / "previous")
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert path.read_bytes() == b"old"


def test_errors_of_other_files_in_the_block_are_not_blamed_on_the_written_one(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(FileNotFoundError) as caught,
        atomic_write.atomic_path(tmp_path / "out") as part,
    ):
        part.write_bytes((tmp_path / "missing").read_bytes())
    assert caught.value.filename == str(tmp_path / "missing")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_in_the_block_is_blamed_on_the_written_file(code: int, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"out: cannot be written \("),
        atomic_write.atomic_path(tmp_path / "out"),
    ):
        raise OSError(code, os.strerror(code))


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match=r"a/out: cannot be written \("):
        write_atomic(tmp_path / "a" / "out", b"")


def _run_in_child(work: object) -> int:
    """Run a function in a child process; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        except ValueError:
            os._exit(7)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("limit", [0, 1, 50_000, 99_999])
def test_interrupted_write_keeps_the_old_file(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "last"
    write_atomic(path, b"old")

    def write_with_limit(handler: object) -> None:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        write_atomic(path, b"x" * 100_000, backup=tmp_path / "previous")

    assert os.WTERMSIG(_run_in_child(lambda: write_with_limit(signal.SIG_DFL))) == signal.SIGXFSZ
    assert path.read_bytes() == b"old"
    for part in tmp_path.glob("*.part"):
        part.unlink()
    assert os.WEXITSTATUS(_run_in_child(lambda: write_with_limit(signal.SIG_IGN))) == 7
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("last", b"old")]


HOLDER = (
    "import sys, time; from pathlib import Path; from recon.utils.atomic_write import write_lock\n"
    "with write_lock(Path(sys.argv[1]), ''): print('locked', flush=True); time.sleep(60)"
)


def test_lock_excludes_a_second_program_until_the_first_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    expected = f"{tmp_path}: is being written by process {holder.pid} on .*: wait"
    with pytest.raises(ValueError, match=expected), write_lock(tmp_path, "wait"):
        pytest.fail("both programs hold the lock")
    holder.kill()
    holder.wait()
    with write_lock(tmp_path, "wait"):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    assert not [*tmp_path.iterdir()]


def test_child_processes_do_not_hold_the_lock(tmp_path: Path) -> None:
    path, link = tmp_path / LOCK_FILE, tmp_path / "link"
    with write_lock(tmp_path, "wait"):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.link(path, link)
    link.rename(path)  # the file that the child has open, as after a killed parent
    try:
        with write_lock(tmp_path, "wait"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
