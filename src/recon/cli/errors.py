"""Print errors of the user or the machine in one line, and exit on Ctrl-C or SIGTERM."""

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

from recon.cli.config_dir import conf_dir as conf_dir  # earlier versions defined it here
from recon.cli.known_errors import explain_known_error
from recon.utils.printable import escape_control_chars

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, an exhausted quota or a file size limit."""
OUT_OF_MEMORY_PATTERN = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|"
    r"DefaultCPUAllocator|alloc_failed",
    re.IGNORECASE,
)
DEAD_WORKER_PATTERN = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (.*)")
UNKNOWN_ARGUMENT_PATTERN = re.compile(
    r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(.*?)'"
)
RESOURCE_ERRORS = (MemoryError, RuntimeError, OSError, EOFError)
"""Types of the errors that out of memory and dead workers raise."""


def _explain_resource_error(error: BaseException) -> str | None:
    """Return a message with the cure for out of memory or a dead worker, else None."""
    if not isinstance(error, RESOURCE_ERRORS):
        return None
    text = str(error).strip()
    match = DEAD_WORKER_PATTERN.search(text)
    if match or _is_lost_worker(error):
        pid, cause = "unknown", text or "no answer"
        if match:
            pid, cause = match[1], match[2].rstrip(". ")
        return (
            f"a data-loading worker (process {pid}) died ({cause}), often because memory or shared "
            "memory (/dev/shm) ran out: lower data.num_workers, or set data.num_workers=0 to see "
            "the worker's own error"
        )
    if isinstance(error, MemoryError) or OUT_OF_MEMORY_PATTERN.search(text):
        reason = text.split("\n")[0][:200] or type(error).__name__
        return (
            f"out of memory ({reason}): lower data.batch_size, and raise "
            "trainer.accumulate_grad_batches by the same factor to keep the effective batch size; "
            "or set trainer.precision=bf16-mixed; or model.checkpoint_activations=true"
        )
    return None


def _is_lost_worker(error: BaseException) -> bool:
    """Tell whether a worker had exited before this process could open its shared memory."""
    sharer = "multiprocessing" + os.sep + "resource_sharer.py"
    return sharer in "".join(traceback.format_exception(error))


def _explain_option_error(error: BaseException) -> str | None:
    """Return a message that names the option behind an error of another library, else None."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import (
        InterpolationKeyError,
        InterpolationToMissingValueError,
        MissingMandatoryValue,
    )

    text = str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: add {error.full_key}=<value>"
    if isinstance(error, InterpolationToMissingValueError | InterpolationKeyError):
        match = re.search(r"(?:key|node) '(.*?)' (?:not found|.*missing)|key: (\S+)$", text, re.M)
        name = next(filter(None, match.groups()), "?") if match else "?"
        if name.startswith("eval."):  # of the chosen selection
            return None
        hint = "; without teachers, student=generative" if name == "teacher" else ""
        return f"{name} is not set, but this configuration refers to it: add {name}=<value>{hint}"
    if isinstance(error, InstantiationException):
        return _explain_instantiation_error(error)
    if match := re.search(
        r"node `([\w.]+)` is not a container and thus cannot contain `(\w+)`", text
    ):
        return f"{match[1]}: has options of its own: set {match[1]}.{match[2]}=<value> instead"
    return None


def _explain_instantiation_error(error: BaseException) -> str | None:
    """Return a message that names the option that a class or function does not take, else None."""
    cause, text = error.__cause__, str(error)
    key = (re.findall(r"full_key: (\S+)", text) or [""])[-1]
    if isinstance(cause, TypeError):
        match = UNKNOWN_ARGUMENT_PATTERN.search(str(cause))
        if match and key and key not in ("trainer", "optimizer"):
            option = f"{key}.{match[2]}".strip(".")
            return f"{option}: {match[1]} has no such option: leave it out, ~{option}"
        if match := re.search(r"missing \d+ required .*?argument\w*: '(.*?)'", str(cause)):
            option = f"{key}.{match[1]}".strip(".")
            return f"{option} is not set: add {option}=<value>"
    if cause is None:
        return f"{key}: {text.splitlines()[0]}" if key else text.splitlines()[0]
    return None


def format_error(error: BaseException) -> str:
    """Return the message of the original error, without its traceback."""
    from hydra.errors import InstantiationException

    if explanation := _explain_option_error(error):
        return explanation
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if explanation := _explain_option_error(error) or _explain_resource_error(error):
        return explanation
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return f"{error}: free disk space, or choose another folder"
    if explanation := explain_known_error(error):
        return explanation
    if type(error).__name__ == "MisconfigurationException":
        return _name_trainer_options(str(error))
    # A data-loading worker sends its error as text, after the traceback.
    match = re.search(r"Original Traceback.*\n\w+: (.*)\Z", str(error), re.DOTALL)
    return match[1].strip() if match else str(error)


def _name_trainer_options(message: str) -> str:
    """Give the Trainer's arguments in a message of Lightning the names of our options."""
    import inspect

    from lightning import Trainer

    arguments = "|".join(inspect.signature(Trainer).parameters)
    pattern = rf"`?Trainer\(({arguments})\b([^)`]*)\)`?|`({arguments})`"

    def name_option(match: re.Match[str]) -> str:
        return f"trainer.{match[1] or match[3]}{match[2] or ''}"

    return " ".join(re.sub(pattern, name_option, message).split())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with a one-line message for wrong input and for errors of the machine."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    input_errors = (ValueError, OSError, InstantiationException, OmegaConfBaseException)
    try:
        yield
    except Exception as error:
        is_expected = (
            isinstance(error, input_errors)
            or _explain_resource_error(error) is not None
            or explain_known_error(error) is not None
            or type(error).__name__ == "MisconfigurationException"  # of Lightning
        )
        if not is_expected or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _exit_with_message(error)


@contextmanager
def exit_on_interrupt(message: str) -> Iterator[None]:
    """Print a message and exit on a signal: with code 1 on Ctrl-C, 143 on SIGTERM.

    Wrong input exits with a one-line message, as in `one_line_errors`.
    """
    received, main_pid = list[int](), os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != main_pid:  # a worker, which inherits the handler
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with one_line_errors():
            yield
    except KeyboardInterrupt:
        print(message, file=sys.stderr, flush=True)
        sys.exit(128 + received[0] if received else 1)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit_with_message(error: BaseException) -> NoReturn:
    sys.exit(
        f"error: {escape_control_chars(format_error(error))}\n"
        "(set HYDRA_FULL_ERROR=1 to see the traceback)"
    )


def fail(message: str) -> NoReturn:
    """Exit with a one-line message about the command line."""
    sys.exit(f"error: {escape_control_chars(message)}")
