"""Choose a few points of a cloud."""

from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recon.ops.native import fps_native

NEAR_ORIGIN_SQUARED_NORM = 1e-3  # squared norm up to which the released CUDA kernel ignores a point
KERNEL_THREADS = 512


@lru_cache(maxsize=16)
def _tie_order(n: int) -> Int[np.ndarray, " n"]:
    """Return the order (N,) in which the released CUDA kernel prefers equally far points.

    Each of S threads keeps the first of the points k = t, t + S, ..., then a tree joins the
    threads pairwise; the earlier one wins: by the reversed bits of k mod S, then by k div S.
    """
    bits = min(n.bit_length() - 1, KERNEL_THREADS.bit_length() - 1)
    threads = 1 << bits
    k = np.arange(n)  # numpy's: a tensor made while a graph is traced must not be kept
    lane, reverse = k % threads, np.zeros_like(k)
    for bit in range(bits):
        reverse |= ((lane >> bit) & 1) << (bits - 1 - bit)
    return (reverse * n + k // threads).argsort()


def farthest_point_sample(
    points: Float[Tensor, "b n 3"], count: int, *, skip_near_origin: bool = False
) -> Int[Tensor, "b {count}"]:
    """Pick points one by one, each the farthest from those picked, starting at index 0.

    Shapes: points (B, N, 3) -> indices (B, count). Equally far points are preferred in the order
    of the released CUDA kernel. `skip_near_origin` also copies its rule that a point of squared
    norm up to 1e-3 is never picked, the first one aside: official weights were trained with it.
    No gradient flows through the choice.

    Raises ValueError where `count` is not in [1, N].
    """
    if not 0 < count <= points.shape[1]:
        raise ValueError(
            f"cannot pick {count} centres from {points.shape[1]} points: "
            "give the clouds more points or lower the number of groups"
        )
    points = points.detach()
    order = torch.from_numpy(_tie_order(points.shape[1])).to(points.device)
    skipped = NEAR_ORIGIN_SQUARED_NORM if skip_near_origin else -1.0
    picked = None
    if not torch.compiler.is_compiling():  # nor exporting: the torch loop is what can be traced
        picked = _by_kernel(points, order, count, skipped)
    return _fps_torch(points, order, count, skipped) if picked is None else picked


def _by_kernel(
    points: Float[Tensor, "b n 3"], order: Int[Tensor, " n"], count: int, skipped: float
) -> Int[Tensor, "b {count}"] | None:
    """Sample by the kernel of the points' device; None where there is none."""
    if points.is_cuda and find_spec("triton") is not None:
        from recon.ops import triton_sampling  # triton is not there on every system

        return triton_sampling.fps_triton(points, order, count, skipped)
    return fps_native(points, order, count, skipped)


def _fps_torch(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"]:
    """Sample on any device, in planes updated in place: 6-10 times the usual loop over points."""
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
        for plane in (y, z):
            torch.sub(plane, plane.gather(1, last), out=delta)
            distance.addcmul_(delta, delta)
        picked[:, i] = torch.minimum(nearest, distance, out=nearest).argmax(1)
    return tie_order[picked]
