"""Run the Triton kernel in Triton's interpreter; test_sampling starts this file as a program."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from recon.ops.sampling import _compute_tie_order, _fps_torch
from recon.ops.triton_sampling import MAX_POINTS, fps_triton

for points, count in ((1024, 64), (100, 100), (33, 7), (1, 1)):
    clouds = torch.randn(3, points, 3)
    clouds[1] = clouds[1].round()  # many equally far points
    clouds[2] *= 0.02  # many near the origin
    order = torch.from_numpy(_compute_tie_order(points))
    for min_squared_norm in (-1.0, 1e-3):
        picked = fps_triton(clouds, order, count, min_squared_norm)
        expected = _fps_torch(clouds, order, count, min_squared_norm)
        assert torch.equal(picked, expected), (points, min_squared_norm)
large = torch.zeros(1, MAX_POINTS + 1, 3)
assert fps_triton(large, torch.arange(MAX_POINTS + 1), 2, -1.0) is None
print("equal")
