"""Files that are whole or not there, and folders that one program writes at a time."""

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


def test_the_old_file_keeps_its_earlier_name(tmp_path: Path) -> None:
    path, earlier = tmp_path / "last", tmp_path / "before"
    for number in range(3):
        write_atomic(path, b"%d" % number, backup=earlier)
    assert (path.read_bytes(), earlier.read_bytes()) == (b"2", b"1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["before", "last"]


def test_without_links_the_old_file_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    test_the_old_file_keeps_its_earlier_name(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_leaves_what_was_there(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last"
    write_atomic(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_write.os, "fsync", refuse)
    with pytest.raises(ValueError, match=rf"last: cannot be written \({os.strerror(number)}\)"):
        write_atomic(path, b"new", backup=tmp_path / "before")
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert path.read_bytes() == b"old"


def _forked(work: object) -> int:
    """Run something in a child; return how it ended, as os.waitpid tells it."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        except ValueError:
            os._exit(7)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("after", [0, 1, 50_000, 99_999])
def test_a_write_that_is_killed_or_refused_after_some_bytes(after: int, tmp_path: Path) -> None:
    path = tmp_path / "last"
    write_atomic(path, b"old")

    def limited(handler: object) -> None:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, (after, after))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        write_atomic(path, b"x" * 100_000, backup=tmp_path / "before")

    assert os.WTERMSIG(_forked(lambda: limited(signal.SIG_DFL))) == signal.SIGXFSZ
    assert path.read_bytes() == b"old"
    for part in tmp_path.glob("*.part"):
        part.unlink()
    assert os.WEXITSTATUS(_forked(lambda: limited(signal.SIG_IGN))) == 7
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("last", b"old")]


HOLDER = (
    "import sys, time; from pathlib import Path; from recon.utils.atomic_write import write_lock\n"
    "with write_lock(Path(sys.argv[1]), ''): print('in', flush=True); time.sleep(60)"
)


def test_a_second_program_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    expected = f"{tmp_path}: is being written by process {holder.pid} on .*: wait"
    with pytest.raises(ValueError, match=expected), write_lock(tmp_path, "wait"):
        pytest.fail("both write")
    holder.kill()
    holder.wait()
    with write_lock(tmp_path, "wait"):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    assert not [*tmp_path.iterdir()]


def test_children_do_not_hold_the_lock(tmp_path: Path) -> None:
    path, kept = tmp_path / LOCK_FILE, tmp_path / "kept"
    with write_lock(tmp_path, "wait"):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.link(path, kept)
    kept.rename(path)  # the very file that the child has open, as a killed parent leaves it
    try:
        with write_lock(tmp_path, "wait"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
