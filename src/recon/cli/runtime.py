"""Set up a process: warning filters and memory allocator."""

import ctypes
import logging
import os
import sys
import warnings


def silence_known_warnings() -> None:
    """Hide known harmless warnings and messages of Lightning, timm and torch."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("timm.scheduler").setLevel(logging.ERROR)  # warns about one-epoch schedules
    for message in (
        ".*does not have many workers.*",
        ".*module.*in eval mode.*",
        ".*directory.*exists and is not empty.*",  # a resumed run
        ".*LeafSpec.*",
        ".*least populated class in y.*",  # of few shapes: the SVM itself reports them
        ".*dataloader is not resumable.*",  # it is resumable: see PointCloudDataModule
        ".*The dirpath has changed from.*",
        ".*when using `ckpt_path`.*callbacks.*",
        ".*You passed in a `val_dataloader`.*",
        ".*multiple `ModelCheckpoint` callbacks.*",  # the first one selects
        "Grad strides do not match bucket view strides.*",  # query parameters of shape (1, 1, dim)
    ):
        warnings.filterwarnings("ignore", message)
    if "SLURM_JOB_ID" not in os.environ:  # outside a job there is no need for srun
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")


def configure_malloc() -> None:
    """Make glibc reuse large freed blocks, because each step allocates the same sizes.

    Returning them to the system and faulting them in again costs 5-20 % of a step on a CPU.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, -1)
