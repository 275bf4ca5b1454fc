"""Farthest point sampling on GPUs by a Triton kernel: one program per cloud."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

MAX_POINTS = 16384
"""Maximum number of points per cloud: they are held in the registers of one program."""


@triton.jit  # type: ignore[untyped-decorator]
def _fps_kernel(  # type: ignore[no-untyped-def]
    points,
    picked,
    n,
    count,
    min_squared_norm,
    BLOCK: tl.constexpr,  # noqa: N803
):
    cloud = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    inside = index < n
    first = points + cloud * 3 * n
    x = tl.load(first + index, mask=inside, other=0.0)
    y = tl.load(first + n + index, mask=inside, other=0.0)
    z = tl.load(first + 2 * n + index, mask=inside, other=0.0)
    norm = x * x + y * y + z * z
    nearest = tl.where(inside & (norm > min_squared_norm), float("inf"), -1.0)
    last = tl.zeros((), tl.int32)
    tl.store(picked + cloud * count, last)
    for i in range(1, count):
        dx = x - tl.load(first + last)
        dy = y - tl.load(first + n + last)
        dz = z - tl.load(first + 2 * n + last)
        nearest = tl.minimum(nearest, dx * dx + dy * dy + dz * dz)
        last = tl.argmax(nearest, 0, tie_break_left=True)
        tl.store(picked + cloud * count + i, last)


def fps_triton(
    points: Float[Tensor, "b n 3"],
    tie_order: Int[Tensor, " n"],
    count: int,
    min_squared_norm: float,
) -> Int[Tensor, "b {count}"] | None:
    """Pick points like `recon.ops.native.fps_native`; return None for clouds that do not fit."""
    if points.dtype != torch.float32 or points.shape[1] > MAX_POINTS:
        return None
    coordinates = points[:, tie_order].mT.contiguous()
    picked = torch.empty(len(points), count, dtype=torch.int32, device=points.device)
    block = triton.next_power_of_2(points.shape[1])
    warps = min(16, max(1, block // 256))
    # No fused multiply-add: it would round differently and pick another point.
    _fps_kernel[(len(points),)](
        coordinates, picked, points.shape[1], count, min_squared_norm, BLOCK=block,
        num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return tie_order[picked.long()]
