"""What the programs of this library share: configurations, quiet, errors in one line."""

import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def conf_dir() -> str:
    """Return the folder of configurations: inside the wheel, else at the root of the checkout."""
    package = Path(__file__).parent
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def quiet() -> None:
    """Hide what is no news: hardware found, and advice that does not fit."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("timm.scheduler").setLevel(logging.ERROR)  # of schedules of one epoch
    for message in (
        ".*does not have many workers.*",
        ".*module.*in eval mode.*",
        ".*logs directory.*exists and is not empty.*",
        ".*LeafSpec.*",
        ".*dataloader is not resumable.*",  # it is: see PointCloudDataModule
        ".*The dirpath has changed from.*",
        ".*when using `ckpt_path`.*callbacks.*",
        ".*You passed in a `val_dataloader`.*",
        ".*multiple `ModelCheckpoint` callbacks.*",  # the first selects
    ):
        warnings.filterwarnings("ignore", message)


def keep_large_blocks() -> None:
    """Let glibc reuse large freed blocks: each step allocates the same ones.

    Returning them to the system and faulting them in again costs 5-20 % of a step on a CPU.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, -1)


def device_of(name: str) -> Any:
    """Return a device by its name, `auto` the accelerator if there is one; raise ValueError."""
    import torch

    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"device={name}: not to be had here ({reason})") from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quoted(word: str, name: str) -> str:
    """Return an option `name=<text>` so that Hydra takes the text as it is, commas and all."""
    key, equals, text = word.partition("=")
    bare = bool(equals) and key == name and text[:1] not in ("'", '"', "")
    if not bare or text in ("null", "???"):
        return word
    # Within quotes, backslashes escape a quote alone, and those before one.
    text = re.sub(r"(\\*)(\"|$)", lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'{key}="{text}"'


def in_one_line(error: BaseException) -> str:
    """Return the message of the error that started it all, without its traceback."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: add {error.full_key}=<value>"
    # A data-loading worker sends its error as text, after the traceback.
    found = re.search(r"Original Traceback.*\n\w+: (.*)\Z", str(error), re.DOTALL)
    return found[1].strip() if found else str(error)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line where its input was wrong."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (ValueError, OSError, InstantiationException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {in_one_line(error)}\n(HYDRA_FULL_ERROR=1 shows where it was raised)")
