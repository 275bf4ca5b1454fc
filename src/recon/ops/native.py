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
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

SOURCES = [Path(__file__).with_name(name) for name in ("fps.c", "knn.c", "pooling.c")]
MAX_PATCH_POINTS = 64
"""Most points of a patch that the maxima below take."""
# No contraction: a fused multiply-add would round differently, and pick another point.
COMPILER_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
    f"-DPOINTS={MAX_PATCH_POINTS}",
)


def _processor() -> str:
    """Name what the machine code is for: caches may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "recon-pointcloud"


def _build(compiler: str, target: Path) -> None:
    """Compile into a file beside the target, then move it there as a whole.

    What a compiler that fails says is shown as a warning.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        command = [compiler, *COMPILER_FLAGS, *map(str, SOURCES), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
        if done.returncode:
            said = "; ".join(done.stderr.splitlines()[:3])
            warnings.warn(f"{compiler} failed, torch computes instead: {said}", stacklevel=3)
        done.check_returncode()
        built.replace(target)


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Return the compiled library, built if need be; None where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("RECON_NATIVE") == "0" or compiler is None:
        return None
    written = [source.read_text() for source in SOURCES]
    told = "\n".join([*written, *COMPILER_FLAGS, platform.machine(), _processor(), compiler])
    try:
        target = _cache() / f"native-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
        if not target.is_file():
            _build(compiler, target)
        loaded = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError, RuntimeError):  # the last without a home
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.recon_fps.argtypes = [pointer, pointer, ctypes.c_float, *[number] * 3, pointer]
    loaded.recon_knn.argtypes = [pointer, pointer, *[number] * 4, pointer]
    loaded.recon_max_over_points.argtypes = [pointer, *[number] * 4, pointer, pointer]
    loaded.recon_max_over_points.restype = None
    sizes = [number] * 4
    loaded.recon_linear_max_backward.argtypes = [
        pointer,
        number,
        number,
        *[pointer] * 3,
        *sizes,
        pointer,
        pointer,
    ]
    loaded.recon_linear_max_backward.restype = None
    return loaded


def _built() -> ctypes.CDLL:
    """Return the library where `usable` said that there is one."""
    found = load_library()
    assert found is not None
    return found


def is_supported(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Return whether the library computes with a tensor: of float32, or of `dtypes`, on a CPU."""
    known = tensor.device.type == "cpu" and tensor.dtype in (dtypes or (torch.float32,))
    return known and load_library() is not None


def _clouds(*tensors: Tensor) -> bool:
    """Return whether the library computes with these as the clouds of one batch, (B, ..., 3)."""
    batch = len(tensors[0])
    return all(is_supported(t) and t.shape == (batch, t.shape[1], 3) for t in tensors)


def _shared_out(count: int, work: Callable[[range], Any]) -> list[Any]:
    """Share rows out among as many threads as torch has; return what each part gives."""
    threads = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // threads for part in range(threads + 1)]
    parts = [range(a, b) for a, b in pairwise(edges)]
    if threads == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(work, parts)]


def fps_native(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"] | None:
    """Pick points as `farthest_point_sample` does; None where it cannot be done here.

    Of equally far points the first in `order` wins. Points of squared norm up to `skipped` are
    never picked.
    """
    if not _clouds(points):
        return None
    native, points, tie_order = _built(), points.contiguous(), tie_order.contiguous()
    picked = torch.empty(len(points), count, dtype=torch.long, device="cpu")

    def some(rows: range) -> int:
        given, found = points[rows.start :], picked[rows.start :]
        sizes = (len(rows), points.shape[1], count)
        return int(
            native.recon_fps(
                given.data_ptr(), tie_order.data_ptr(), min_squared_norm, *sizes, found.data_ptr()
            )
        )

    return None if any(_shared_out(len(points), some)) else picked


def knn_native(
    queries: Float[Tensor, "b m 3"], points: Float[Tensor, "b n 3"], k: int
) -> Int[Tensor, "b m {k}"] | None:
    """Find nearest points as `knn` does; None where it cannot be done here."""
    if not _clouds(queries, points):
        return None
    native, queries, points = _built(), queries.contiguous(), points.contiguous()
    picked = torch.empty(*queries.shape[:2], k, dtype=torch.long, device="cpu")

    def some(rows: range) -> int:
        asked, given, found = (part[rows.start :].data_ptr() for part in (queries, points, picked))
        sizes = (len(rows), queries.shape[1], points.shape[1], k)
        return int(native.recon_knn(asked, given, *sizes, found))

    return None if any(_shared_out(len(points), some)) else picked


def max_over_points(
    x: Float[Tensor, "p k c"],
) -> tuple[Float[Tensor, "p c"], Int[Tensor, "p c"]]:
    """Return the maximum over K points of float32 or bfloat16, and which point it is (int32)."""
    native, x = _built(), x.contiguous()
    largest = x.new_empty(x.shape[0], x.shape[2])
    at = torch.empty(largest.shape, dtype=torch.int32, device="cpu")
    half = x.dtype == torch.bfloat16

    def some(rows: range) -> None:
        given, found, where = (tensor[rows.start :].data_ptr() for tensor in (x, largest, at))
        native.recon_max_over_points(given, half, len(rows), *x.shape[1:], found, where)

    _shared_out(len(x), some)
    return largest, at


def linear_max_backward(
    x: Float[Tensor, "p k d"],
    weight: Float[Tensor, "c d"],
    grad_output: Float[Tensor, "p c"],
    argmax: Int[Tensor, "p c"],
    *,
    rectified: bool,
) -> tuple[Float[Tensor, "p k d"], Float[Tensor, "c d"]]:
    """Return the gradients of `linear_max` by x and by weight.

    `at` (int32) says which of the K points was the largest; with `rectified` x went through a ReLU
    before, whose gradient is taken too. x may be bfloat16, all else is float32.
    """
    native = _built()
    x, weight, grad_output, argmax = (
        tensor.contiguous() for tensor in (x, weight, grad_output, argmax)
    )
    of_x, half = torch.empty_like(x), x.dtype == torch.bfloat16

    def some(rows: range) -> Tensor:
        share = torch.zeros_like(weight)  # each thread adds up its own
        x_at, grad_at, at_at, of_x_at = (
            t[rows.start :].data_ptr() for t in (x, grad_output, argmax, of_x)
        )
        native.recon_linear_max_backward(
            x_at, half, rectified, weight.data_ptr(), grad_at, at_at,
            len(rows), *x.shape[1:], len(weight), of_x_at, share.data_ptr(),
        )  # fmt: skip
        return share

    first, *others = _shared_out(len(x), some)
    return of_x, sum(others, first)
