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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

SOURCES = [Path(__file__).with_name(name) for name in ("fps.c", "pooling.c")]
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
        command = [compiler, *FLAGS, *map(str, SOURCES), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        built.replace(target)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled library, built if need be; None where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("RECON_NATIVE") == "0" or compiler is None:
        return None
    written = [source.read_text() for source in SOURCES]
    told = "\n".join([*written, *FLAGS, platform.machine(), _processor(), compiler])
    target = _cache() / f"native-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            _build(compiler, target)
        loaded = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.recon_fps.argtypes = [pointer, pointer, ctypes.c_float, *[number] * 3, pointer]
    loaded.recon_linear_max_backward.argtypes = [*[pointer] * 4, *[number] * 4, pointer, pointer]
    return loaded


def usable(tensor: Tensor) -> bool:
    """Return whether a tensor is of the kind that the library computes with."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _shared_out(count: int, work: Callable[[range], int]) -> bool:
    """Share rows out among as many threads as torch has; return whether all of them succeeded."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return not work(range(count))
    edges = torch.linspace(0, count, threads + 1).long().tolist()
    parts = [range(a, b) for a, b in pairwise(edges) if b > a]
    with ThreadPoolExecutor(threads) as pool:
        return not any(pool.map(work, parts))


def farthest_points(
    points: Float[Tensor, "b n 3"], order: Int[Tensor, " n"], count: int, skipped: float
) -> Int[Tensor, "b {count}"] | None:
    """Pick points as `farthest_point_sample` does; None where it cannot be done here.

    Of equally far points the first in `order` wins. Points of squared norm up to `skipped` are
    never picked.
    """
    if not usable(points) or (native := library()) is None:
        return None
    points, order = points.contiguous(), order.contiguous()
    picked = torch.empty(len(points), count, dtype=torch.long)

    def some(rows: range) -> int:
        given, found = points[rows.start :], picked[rows.start :]
        sizes = (len(rows), points.shape[1], count)
        return int(
            native.recon_fps(given.data_ptr(), order.data_ptr(), skipped, *sizes, found.data_ptr())
        )

    return picked if _shared_out(len(points), some) else None


def linear_max_gradients(
    x: Float[Tensor, "p d k"],
    weight: Float[Tensor, "c d"],
    grad: Float[Tensor, "p c"],
    at: Int[Tensor, "p c"],
) -> tuple[Float[Tensor, "p d k"], Float[Tensor, "c d"]] | None:
    """Return the gradients of `linear_max` by x and by weight; None where it cannot be done here.

    `at` says which of the K points was the largest.
    """
    if not usable(x) or (native := library()) is None:
        return None
    x, weight, grad, at = (tensor.contiguous() for tensor in (x, weight, grad, at))
    of_x = torch.empty_like(x)
    shares: list[Tensor] = []  # each thread adds up its own

    def some(rows: range) -> int:
        share = torch.zeros_like(weight)
        shares.append(share)
        given = (tensor[rows.start :].data_ptr() for tensor in (x, grad, at))
        of_rows = of_x[rows.start :].data_ptr()
        x_at, grad_at, at_at = given
        sizes = (len(rows), *x.shape[1:], len(weight))
        return int(
            native.recon_linear_max_backward(
                x_at, weight.data_ptr(), grad_at, at_at, *sizes, of_rows, share.data_ptr()
            )
        )

    if not _shared_out(len(x), some):
        return None
    return of_x, torch.stack(shares).sum(0) if len(shares) > 1 else shares[0]
