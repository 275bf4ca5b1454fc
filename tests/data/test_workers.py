"""Data-loading workers exit with their parent process."""

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

rows = [np.zeros(3_000_000)] * 100  # more than the capacity of a pipe
load = DataLoader(rows, batch_size=None, num_workers=2, worker_init_fn=end_with_parent)
load.collate_fn = lambda row: row
batches = iter(load)
next(batches)
print(*(worker.pid for worker in batches._workers), flush=True)
time.sleep(100)
"""


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_exit_when_their_parent_is_killed_during_transfer() -> None:
    command = [sys.executable, "-c", LOADER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = process.stdout.readline().split()
        time.sleep(0.5)  # then both workers block on a full pipe
        assert len(workers) == 2
        assert all(map(is_running, workers))
        process.kill()
    end = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    survivors = [pid for pid in workers if is_running(pid)]
    for pid in survivors:
        os.kill(int(pid), 9)
    assert not survivors
