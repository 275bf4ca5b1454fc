"""Set up a process: warnings, memory allocator, device."""

import ctypes
import logging
import os
import sys
import warnings
from typing import Any


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
