"""Rendering of point clouds."""

import numpy as np

from recon.data.dataset import Cloud
from recon.data.render import render_cloud


def test_renderings_show_the_nearest_points_upright() -> None:
    rng = np.random.default_rng(0)
    front = rng.uniform((-1, -1, 0.9), (1, 1, 1), (3000, 3)).astype(np.float32)
    back = front - np.array([0, 0, 2], dtype=np.float32)
    red, blue = np.array([[255, 0, 0]], np.uint8), np.array([[0, 0, 255]], np.uint8)
    colors = np.concatenate([red.repeat(3000, 0), blue.repeat(3000, 0)])
    middle = np.array(render_cloud(Cloud(np.concatenate([front, back]), colors=colors)))[
        100:125, 90:115
    ]
    assert (middle[..., 0] > middle[..., 2]).mean() > 0.95
    tall = rng.uniform((-0.2, -1, -0.2), (0.2, 1, 0.2), (2000, 3)).astype(np.float32)
    for up, order in (("y", [0, 1, 2]), ("z", [2, 0, 1])):
        rows, columns = np.nonzero(
            (np.array(render_cloud(Cloud(tall[:, order]), up=up)) < 250).any(-1)
        )
        assert np.ptp(rows) > 1.5 * np.ptp(columns), up
