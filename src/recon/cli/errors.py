"""What the programs of this library share: configurations, quiet, errors in one line."""

import ctypes
import errno
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from recon.utils.printable import escape_control_chars


def conf_dir() -> str:
    """Return the folder of configurations: inside the wheel, else at the root of the checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def silence_known_warnings() -> None:
    """Hide what is no news: hardware found, and advice that does not fit."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("timm.scheduler").setLevel(logging.ERROR)  # of schedules of one epoch
    for message in (
        ".*does not have many workers.*",
        ".*module.*in eval mode.*",
        ".*directory.*exists and is not empty.*",  # a run that goes on in its folder
        ".*LeafSpec.*",
        ".*least populated class in y.*",  # of few shapes, which the SVM says itself
        ".*dataloader is not resumable.*",  # it is: see PointCloudDataModule
        ".*The dirpath has changed from.*",
        ".*when using `ckpt_path`.*callbacks.*",
        ".*You passed in a `val_dataloader`.*",
        ".*multiple `ModelCheckpoint` callbacks.*",  # the first selects
        "Grad strides do not match bucket view strides.*",  # of queries, (1, 1, dim)
    ):
        warnings.filterwarnings("ignore", message)
    if "SLURM_JOB_ID" not in os.environ:  # outside a job srun is not meant
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")


def configure_malloc() -> None:
    """Let glibc reuse large freed blocks: each step allocates the same ones.

    Returning them to the system and faulting them in again costs 5-20 % of a step on a CPU.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, -1)


def resolve_device(name: str) -> Any:
    """Return a device by its name, `auto` the accelerator if there is one; raise ValueError."""
    import torch

    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"device={name}: not to be had here ({reason})") from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quote_override(override: str, name: str) -> str:
    """Return an option `name=<text>` so that Hydra takes the text as it is, commas and all."""
    key, equals, text = override.partition("=")
    bare = bool(equals) and key == name and text[:1] not in ("'", '"', "")
    if not bare or text in ("null", "???"):
        return override
    # Within quotes, backslashes escape a quote alone, and those before one.
    text = re.sub(r"(\\*)(\"|$)", lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'{key}="{text}"'


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
