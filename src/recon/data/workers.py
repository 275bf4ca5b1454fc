"""What a data-loading worker does before its first sample."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent(worker: int) -> None:
    """Have a worker end when the process that started it is gone, however that ended.

    A `worker_init_fn` of loaders. torch watches between samples alone: a worker that hands one over
    when its parent is killed would wait for it for ever.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
