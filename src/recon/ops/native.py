"""C kernels for CPUs, compiled on first use; without a compiler, torch operations replace them.

The compiled library takes a few kilobytes in the user's cache folder. RECON_NATIVE=0 in the
environment turns it off.
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
"""Maximum number of points per patch in `linear_max_backward`."""
COMPILER_TIMEOUT = 60.0
"""Seconds to wait for the compiler, which takes about two."""
# No contraction: a fused multiply-add would round differently and pick another point.
COMPILER_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
    f"-DMAX_POINTS={MAX_PATCH_POINTS}",
)


def _read_cpu_features() -> str:
    """Return the processor's features: several machines may share one cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "recon-pointcloud"


def _compile_library(compiler: str, target: Path) -> None:
    """Compile into a temporary folder beside the target, then rename the library to it.

    If the compiler fails, the first lines of its message are shown as a warning. If it takes too
    long, the warning tells how to skip it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        library = Path(folder) / target.name
        command = [compiler, *COMPILER_FLAGS, *map(str, SOURCES), "-o", str(library)]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=COMPILER_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            warnings.warn(
                f"{compiler} did not finish within {COMPILER_TIMEOUT:g} s, using torch instead, "
                "which is slower: start again when the machine is less busy, or set RECON_NATIVE=0 "
                "to skip the compiler",
                stacklevel=3,
            )
            raise
        if result.returncode:
            message = "; ".join(result.stderr.splitlines()[:3])
            warnings.warn(f"{compiler} failed, using torch instead: {message}", stacklevel=3)
        result.check_returncode()
        library.replace(target)


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Return the compiled library, built if necessary; None if it cannot be built."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.environ.get("RECON_NATIVE") == "0" or compiler is None:
        return None
    sources = [source.read_text() for source in SOURCES]
    key = "\n".join([*sources, *COMPILER_FLAGS, platform.machine(), _read_cpu_features(), compiler])
    try:
        target = _cache_folder() / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        if not target.is_file():
            _compile_library(compiler, target)
        library = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError, RuntimeError):  # RuntimeError: no home folder
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.recon_fps.argtypes = [pointer, pointer, ctypes.c_float, *[integer] * 3, pointer]
    library.recon_knn.argtypes = [pointer, pointer, *[integer] * 4, pointer]
    library.recon_max_over_points.argtypes = [pointer, *[integer] * 4, pointer, pointer]
    library.recon_max_over_points.restype = None
    sizes = [integer] * 4
    library.recon_linear_max_backward.argtypes = [
        pointer,
        integer,
        integer,
        *[pointer] * 3,
        *sizes,
        pointer,
        pointer,
    ]
    library.recon_linear_max_backward.restype = None
    return library


def _require_library() -> ctypes.CDLL:
    """Return the library; call it only if `is_supported` returned True."""
    library = load_library()
    assert library is not None
    return library


def is_supported(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Return whether the library handles a tensor: on a CPU, of float32 or one of `dtypes`."""
    has_kernel = tensor.device.type == "cpu" and tensor.dtype in (dtypes or (torch.float32,))
    return has_kernel and load_library() is not None


def _are_supported_clouds(*tensors: Tensor) -> bool:
    """Return whether the library handles these tensors as one batch of clouds, (B, ..., 3)."""
    batch = len(tensors[0])
    return all(is_supported(t) and t.shape == (batch, t.shape[1], 3) for t in tensors)


def _map_row_ranges(count: int, function: Callable[[range], Any]) -> list[Any]:
    """Call a function with consecutive ranges of rows, one per torch thread; return the results."""
    threads = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // threads for part in range(threads + 1)]
    ranges = [range(a, b) for a, b in pairwise(edges)]
    if threads == 1:
        return [function(ranges[0])]
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(function, ranges)]


def fps_native(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"] | None:
    """Pick points like `farthest_point_sample`; return None if the library does not support them.

    Among equally far points the first in `tie_order` is picked. Points of squared norm up to
    `min_squared_norm` are never picked.
    """
    if not _are_supported_clouds(points):
        return None
    library, points, tie_order = _require_library(), points.contiguous(), tie_order.contiguous()
    picked = torch.empty(len(points), count, dtype=torch.long, device="cpu")

    def run(rows: range) -> int:
        clouds, output = points[rows.start :], picked[rows.start :]
        sizes = (len(rows), points.shape[1], count)
        return int(
            library.recon_fps(
                clouds.data_ptr(), tie_order.data_ptr(), min_squared_norm, *sizes, output.data_ptr()
            )
        )

    return None if any(_map_row_ranges(len(points), run)) else picked


def knn_native(
    queries: Float[Tensor, "b m 3"], points: Float[Tensor, "b n 3"], k: int
) -> Int[Tensor, "b m {k}"] | None:
    """Find neighbors like `knn`; return None if the library does not support the clouds."""
    if not _are_supported_clouds(queries, points):
        return None
    library, queries, points = _require_library(), queries.contiguous(), points.contiguous()
    picked = torch.empty(*queries.shape[:2], k, dtype=torch.long, device="cpu")

    def run(rows: range) -> int:
        query_at, point_at, output_at = (
            tensor[rows.start :].data_ptr() for tensor in (queries, points, picked)
        )
        sizes = (len(rows), queries.shape[1], points.shape[1], k)
        return int(library.recon_knn(query_at, point_at, *sizes, output_at))

    return None if any(_map_row_ranges(len(points), run)) else picked


def max_over_points(
    x: Float[Tensor, "p k c"],
) -> tuple[Float[Tensor, "p c"], Int[Tensor, "p c"]]:
    """Return the maxima over the K points and the indices of those points (int32).

    x is float32 or bfloat16.
    """
    library, x = _require_library(), x.contiguous()
    maximum = x.new_empty(x.shape[0], x.shape[2])
    argmax = torch.empty(maximum.shape, dtype=torch.int32, device="cpu")
    is_bf16 = x.dtype == torch.bfloat16

    def run(rows: range) -> None:
        x_at, max_at, argmax_at = (t[rows.start :].data_ptr() for t in (x, maximum, argmax))
        library.recon_max_over_points(x_at, is_bf16, len(rows), *x.shape[1:], max_at, argmax_at)

    _map_row_ranges(len(x), run)
    return maximum, argmax


def linear_max_backward(
    x: Float[Tensor, "p k d"],
    weight: Float[Tensor, "c d"],
    grad_output: Float[Tensor, "p c"],
    argmax: Int[Tensor, "p c"],
    *,
    rectified: bool,
) -> tuple[Float[Tensor, "p k d"], Float[Tensor, "c d"]]:
    """Return the gradients of `linear_max` with respect to x and weight.

    `argmax` (int32) is the index of each maximum among the K points. With `rectified`, x is the
    output of a ReLU, whose gradient is applied too. x may be bfloat16; all else is float32.
    """
    library = _require_library()
    x, weight, grad_output, argmax = (
        tensor.contiguous() for tensor in (x, weight, grad_output, argmax)
    )
    grad_x, is_bf16 = torch.empty_like(x), x.dtype == torch.bfloat16

    def run(rows: range) -> Tensor:
        grad_weight = torch.zeros_like(weight)  # one sum per thread
        x_at, grad_at, argmax_at, grad_x_at = (
            t[rows.start :].data_ptr() for t in (x, grad_output, argmax, grad_x)
        )
        library.recon_linear_max_backward(
            x_at, is_bf16, rectified, weight.data_ptr(), grad_at, argmax_at,
            len(rows), *x.shape[1:], len(weight), grad_x_at, grad_weight.data_ptr(),
        )  # fmt: skip
        return grad_weight

    first_sum, *other_sums = _map_row_ranges(len(x), run)
    return grad_x, sum(other_sums, first_sum)
