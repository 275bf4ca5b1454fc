"""Draw a cloud: the picture of a shape that came without one."""

import numpy as np
from PIL import Image

from recon.data.dataset import Cloud

DEFAULT_GRAY = 0.65
CAMERA_AZIMUTH, CAMERA_ELEVATION = np.deg2rad(30), np.deg2rad(20)
LIGHT_DIRECTION = np.array([0.3, 0.5, 0.8]) / np.linalg.norm([0.3, 0.5, 0.8])


def render_cloud(cloud: Cloud, *, up: str = "y", size: int = 224) -> Image.Image:
    """Draw points as small discs, nearest on top, seen from the front, above and to the right.

    White ground; colours where there are some, shaded by normals, or else by depth.
    """
    axis = "xyz".index(up)
    order = [(axis + 2) % 3, axis, (axis + 1) % 3] if axis != 1 else [0, 1, 2]
    points = cloud.points[:, order] - cloud.points[:, order].mean(0)
    right, top, depth = _seen(points).T
    extent = max(np.abs(right).max(), np.abs(top).max(), 1e-9)
    radius = max(1, round(0.9 * size / np.sqrt(len(points))))
    scale = (size / 2 - radius - 2) / extent
    shade = _shade(cloud, order, depth)
    colors = np.full((len(points), 3), DEFAULT_GRAY)
    if cloud.colors is not None:
        bytes_ = cloud.colors.dtype == np.uint8
        colors = cloud.colors / 255 if bytes_ else cloud.colors.astype(np.float64)
    pixels = np.clip(255 * colors * shade[:, None], 0, 255).astype(np.uint8)

    far_first = np.argsort(depth, kind="stable")
    x = np.rint(size / 2 + scale * right[far_first]).astype(int)
    y = np.rint(size / 2 - scale * top[far_first]).astype(int)
    offsets = np.arange(-radius, radius + 1)
    dx, dy = (grid.ravel() for grid in np.meshgrid(offsets, offsets))
    disc = dx * dx + dy * dy <= radius * radius
    canvas = np.full((size, size, 3), 255, dtype=np.uint8)
    # Of pixels written more than once, the last stays: the nearest point.
    rows = np.clip(y[:, None] + dy[disc], 0, size - 1)
    columns = np.clip(x[:, None] + dx[disc], 0, size - 1)
    canvas[rows, columns] = pixels[far_first][:, None]
    return Image.fromarray(canvas)


def _seen(vectors: np.ndarray) -> np.ndarray:
    """Turn vectors (right, top, front) into the camera's."""
    x, y, z = vectors.T
    x, z = (
        np.cos(CAMERA_AZIMUTH) * x - np.sin(CAMERA_AZIMUTH) * z,
        np.sin(CAMERA_AZIMUTH) * x + np.cos(CAMERA_AZIMUTH) * z,
    )
    return np.stack(
        [
            x,
            np.cos(CAMERA_ELEVATION) * y - np.sin(CAMERA_ELEVATION) * z,
            np.sin(CAMERA_ELEVATION) * y + np.cos(CAMERA_ELEVATION) * z,
        ],
        1,
    )


def _shade(cloud: Cloud, order: list[int], depth: np.ndarray) -> np.ndarray:
    """Return the brightness of each point, in [0, 1]."""
    if cloud.normals is not None:
        return 0.35 + 0.65 * np.abs(_seen(cloud.normals[:, order]) @ LIGHT_DIRECTION)
    return 0.55 + 0.45 * (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
