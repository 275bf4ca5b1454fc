"""Run the Triton kernel in its interpreter: a program of its own, run by test_sampling."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from recon.ops.sampling import _fps_torch, _tie_order
from recon.ops.triton_sampling import MAX_POINTS, fps_triton

for points, count in ((1024, 64), (100, 100), (33, 7), (1, 1)):
    clouds = torch.randn(3, points, 3)
    clouds[1] = clouds[1].round()  # many equally far points
    clouds[2] *= 0.02  # many near the origin
    order = torch.from_numpy(_tie_order(points))
    for skipped in (-1.0, 1e-3):
        ours = fps_triton(clouds, order, count, skipped)
        assert torch.equal(ours, _fps_torch(clouds, order, count, skipped)), (points, skipped)
large = torch.zeros(1, MAX_POINTS + 1, 3)
assert fps_triton(large, torch.arange(MAX_POINTS + 1), 2, -1.0) is None
print("exact")
