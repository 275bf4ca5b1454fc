"""A data-loading worker does not outlive the process that it loads for."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOADER = """
import time
import numpy as np
from torch.utils.data import DataLoader
from recon.data.workers import end_with_parent

rows = [np.zeros(3_000_000)] * 100  # more than a pipe holds
load = DataLoader(rows, batch_size=None, num_workers=2, worker_init_fn=end_with_parent)
load.collate_fn = lambda row: row
batches = iter(load)
next(batches)
print(*(worker.pid for worker in batches._workers), flush=True)
time.sleep(100)
"""


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="lists processes by /proc")
def test_workers_end_when_their_parent_is_killed_as_they_hand_over() -> None:
    command = [sys.executable, "-c", LOADER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        workers = told.stdout.readline().split()
        time.sleep(0.5)  # both then wait for room in the pipe
        assert len(workers) == 2
        assert all(map(running, workers))
        told.kill()
    end = time.monotonic() + 10
    while any(map(running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [pid for pid in workers if running(pid)]
    for pid in left:
        os.kill(int(pid), 9)
    assert not left
