"""Loops that Python is too slow for, in C, built once by the compiler of the machine if any.

The library is a few kilobytes in the user's cache folder. Without a compiler, or with
RECON_NATIVE=0 in the environment, the same is computed by torch.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

SOURCE = Path(__file__).with_name("fps.c")
# No contraction: a fused multiply-add would round differently, and pick another point.
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")


def _processor() -> str:
    """Name what the machine code is for: caches may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "recon3d"


def _build(compiler: str, target: Path) -> None:
    """Compile into a file beside the target, then move it there as a whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        built.replace(target)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled library, built if need be; None where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("RECON_NATIVE") == "0" or compiler is None:
        return None
    told = "\n".join([SOURCE.read_text(), *FLAGS, platform.machine(), _processor(), compiler])
    target = _cache() / f"fps-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            _build(compiler, target)
        loaded = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    sizes = [number] * 3
    loaded.recon_fps.argtypes = [pointer, pointer, ctypes.c_float, *sizes, pointer]
    return loaded


def farthest_points(
    points: Float[Tensor, "b n 3"], order: Int[Tensor, " n"], count: int, skipped: float
) -> Int[Tensor, "b {count}"] | None:
    """Pick points as `farthest_point_sample` does; None where it cannot be done here.

    Of equally far points the first in `order` wins. Points of squared norm up to `skipped` are
    never picked. Clouds are shared out among as many threads as torch has.
    """
    fits = points.device.type == "cpu" and points.dtype == torch.float32
    if not fits or (native := library()) is None:
        return None
    points, order = points.contiguous(), order.contiguous()
    picked = torch.empty(len(points), count, dtype=torch.long)

    def some(rows: range) -> int:
        given, found = points[rows.start :], picked[rows.start :]
        sizes = (len(rows), points.shape[1], count)
        return int(
            native.recon_fps(given.data_ptr(), order.data_ptr(), skipped, *sizes, found.data_ptr())
        )

    threads = min(torch.get_num_threads(), len(points))
    if threads == 1:
        failed = [some(range(len(points)))]
    else:
        edges = torch.linspace(0, len(points), threads + 1).long().tolist()
        parts = [range(a, b) for a, b in pairwise(edges) if b > a]
        with ThreadPoolExecutor(threads) as pool:
            failed = [*pool.map(some, parts)]
    return None if any(failed) else picked
