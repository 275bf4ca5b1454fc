"""What the programs of this library share: configurations, quiet, errors in one line."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from recon.cli.config_dir import conf_dir as conf_dir  # part of this module in earlier versions
from recon.utils.printable import escape_control_chars

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of a disk that is full, or a quota or limit that is reached."""
OUT_OF_MEMORY_PATTERN = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|"
    r"DefaultCPUAllocator|alloc_failed",
    re.IGNORECASE,
)
DEAD_WORKER_PATTERN = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (.*)")
RESOURCE_ERRORS = (MemoryError, RuntimeError, OSError, EOFError)
"""What want of memory and dead workers are raised as."""


def _cure(error: BaseException) -> str | None:
    """Return what to do about want of memory or a worker that died, None for any other error."""
    if not isinstance(error, RESOURCE_ERRORS):
        return None
    text = str(error).strip()
    dead = DEAD_WORKER_PATTERN.search(text)
    if dead or _lost_a_worker(error):
        which, how = (dead[1], dead[2].rstrip(". ")) if dead else ("unknown", text or "no answer")
        return (
            f"a data-loading worker (process {which}) died ({how}), often for want of memory, "
            "shared memory (/dev/shm) too: lower data.num_workers, or set data.num_workers=0 to "
            "see an "
            "error of its own"
        )
    if isinstance(error, MemoryError) or OUT_OF_MEMORY_PATTERN.search(text):
        why = text.split("\n")[0][:200] or type(error).__name__
        return (
            f"out of memory ({why}): lower data.batch_size, and raise "
            "trainer.accumulate_grad_batches as much where the sum should stay; or set "
            "trainer.precision=bf16-mixed; or model.checkpoint_activations=true"
        )
    return None


def _lost_a_worker(error: BaseException) -> bool:
    """Tell whether a process that shares its memory was gone when this one asked for it."""
    asked = "multiprocessing" + os.sep + "resource_sharer.py"
    return asked in "".join(traceback.format_exception(error))


def format_error(error: BaseException) -> str:
    """Return the message of the error that started it all, without its traceback."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: add {error.full_key}=<value>"
    if cure := _cure(error):
        return cure
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return f"{error}: make room, or choose another folder"
    # A data-loading worker sends its error as text, after the traceback.
    found = re.search(r"Original Traceback.*\n\w+: (.*)\Z", str(error), re.DOTALL)
    return found[1].strip() if found else str(error)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line where its input was wrong."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    wrong_input = (ValueError, OSError, InstantiationException, OmegaConfBaseException)
    try:
        yield
    except Exception as error:
        known = isinstance(error, wrong_input) or _cure(error) is not None
        if not known or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _leave(error)


@contextmanager
def exit_on_interrupt(message: str) -> Iterator[None]:
    """End the program with a sentence where it is asked to stop: code 1 of Ctrl-C, 143 of SIGTERM.

    Wrong input ends in one line within it.
    """
    asked, here = list[int](), os.getpid()

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() != here:  # a worker, which took this over
            os._exit(128 + number)
        asked.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ask)
    try:
        with one_line_errors():
            yield
    except KeyboardInterrupt:
        print(message, file=sys.stderr, flush=True)
        sys.exit(128 + asked[0] if asked else 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(error: BaseException) -> NoReturn:
    sys.exit(
        f"error: {escape_control_chars(format_error(error))}\n(HYDRA_FULL_ERROR=1 shows where "
        f"it was raised)"
    )
