"""Terminate data-loading workers when their parent process dies."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent(worker: int) -> None:
    """Make a worker exit when its parent process ends, for whatever reason.

    Use it as `worker_init_fn` of a DataLoader. torch checks the parent only between samples: a
    worker that is sending a sample when its parent is killed would block forever.
    """
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
