"""Farthest point sampling with the tie order of the released CUDA kernel."""

from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recon.ops.native import fps_native

NEAR_ORIGIN_SQUARED_NORM = 1e-3
"""Maximum squared norm of the points that the released CUDA kernel never picks."""
KERNEL_THREADS = 512
"""Maximum number of threads per cloud in the released CUDA kernel."""


@lru_cache(maxsize=16)
def _compute_tie_order(n: int) -> Int[np.ndarray, " n"]:
    """Return the order (N,) in which the released CUDA kernel picks among equally far points.

    Each of S threads keeps the first of the points k = t, t + S, ...; a tree reduction then joins
    the threads in pairs, and the lower thread wins. This sorts points by the reversed bits of
    k mod S, then by k div S.
    """
    bits = min(n.bit_length() - 1, KERNEL_THREADS.bit_length() - 1)
    threads = 1 << bits
    k = np.arange(n)  # NumPy: a tensor created while a graph is traced must not be cached
    thread, reversed_bits = k % threads, np.zeros_like(k)
    for bit in range(bits):
        reversed_bits |= ((thread >> bit) & 1) << (bits - 1 - bit)
    return (reversed_bits * n + k // threads).argsort()


def farthest_point_sample(
    points: Float[Tensor, "b n 3"], count: int, *, skip_near_origin: bool = False
) -> Int[Tensor, "b {count}"]:
    """Pick points one by one, each the farthest from those already picked, starting at index 0.

    Shapes: points (B, N, 3) -> indices (B, count). Ties are broken in the order of the released
    CUDA kernel. `skip_near_origin` also copies its rule that points of squared norm up to 1e-3 are
    never picked, except as the first point: the official weights were trained with it. No gradient
    flows through the indices.

    Raises ValueError if `count` is not in [1, N].
    """
    if not 0 < count <= points.shape[1]:
        raise ValueError(
            f"cannot pick {count} centers from {points.shape[1]} points: "
            "give the clouds more points or lower the number of groups"
        )
    points = points.detach()
    tie_order = torch.from_numpy(_compute_tie_order(points.shape[1])).to(points.device)
    min_squared_norm = NEAR_ORIGIN_SQUARED_NORM if skip_near_origin else -1.0
    picked = None
    if not torch.compiler.is_compiling():  # or exporting: only the torch loop can be traced
        picked = _sample_with_kernel(points, tie_order, count, min_squared_norm)
    return _fps_torch(points, tie_order, count, min_squared_norm) if picked is None else picked


def _sample_with_kernel(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"] | None:
    """Sample with the kernel for the points' device; return None if there is none."""
    if points.is_cuda and find_spec("triton") is not None:
        from recon.ops import triton_sampling  # Triton is not available on every system

        return triton_sampling.fps_triton(points, tie_order, count, min_squared_norm)
    return fps_native(points, tie_order, count, min_squared_norm)


def _fps_torch(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"]:
    """Sample on any device.

    Updating x, y and z in place as separate tensors is 6-10 times faster than updating (N, 3).
    """
    x, y, z = points[:, tie_order].unbind(-1)
    x, y, z = x.contiguous(), y.contiguous(), z.contiguous()
    nearest = torch.full_like(x, torch.inf)
    if min_squared_norm >= 0:
        nearest.masked_fill_(x * x + y * y + z * z <= min_squared_norm, -1.0)
    picked = torch.zeros(x.shape[0], count, dtype=torch.long, device=x.device)
    distance, delta = torch.empty_like(x), torch.empty_like(x)
    for i in range(1, count):
        last = picked[:, i - 1 : i]
        torch.sub(x, x.gather(1, last), out=distance).square_()
        for axis in (y, z):
            torch.sub(axis, axis.gather(1, last), out=delta)
            distance.addcmul_(delta, delta)
        picked[:, i] = torch.minimum(nearest, distance, out=nearest).argmax(1)
    return tie_order[picked]
