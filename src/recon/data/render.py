"""Render a point cloud as an image, for shapes without images."""

import numpy as np
from PIL import Image

from recon.data.dataset import Cloud

DEFAULT_GRAY = 0.65
CAMERA_AZIMUTH, CAMERA_ELEVATION = np.deg2rad(30), np.deg2rad(20)
LIGHT_DIRECTION = np.array([0.3, 0.5, 0.8]) / np.linalg.norm([0.3, 0.5, 0.8])


def render_cloud(cloud: Cloud, *, up: str = "y", size: int = 224) -> Image.Image:
    """Render points as small disks, seen from the front, above and to the right.

    Near points cover far ones. The background is white. Points without colors are gray.
    Normals determine the brightness of points; without normals, the depth does.
    """
    axis = "xyz".index(up)
    order = [(axis + 2) % 3, axis, (axis + 1) % 3] if axis != 1 else [0, 1, 2]
    points = cloud.points[:, order] - cloud.points[:, order].mean(0)
    right, top, depth = _rotate_to_camera(points).T
    extent = max(np.abs(right).max(), np.abs(top).max(), 1e-9)
    radius = max(1, round(0.9 * size / np.sqrt(len(points))))
    scale = (size / 2 - radius - 2) / extent
    brightness = _compute_brightness(cloud, order, depth)
    colors = np.full((len(points), 3), DEFAULT_GRAY)
    if cloud.colors is not None:
        is_uint8 = cloud.colors.dtype == np.uint8
        colors = cloud.colors / 255 if is_uint8 else cloud.colors.astype(np.float64)
    pixels = np.clip(255 * colors * brightness[:, None], 0, 255).astype(np.uint8)

    far_first = np.argsort(depth, kind="stable")
    x = np.rint(size / 2 + scale * right[far_first]).astype(int)
    y = np.rint(size / 2 - scale * top[far_first]).astype(int)
    offsets = np.arange(-radius, radius + 1)
    dx, dy = (grid.ravel() for grid in np.meshgrid(offsets, offsets))
    disk = dx * dx + dy * dy <= radius * radius
    canvas = np.full((size, size, 3), 255, dtype=np.uint8)
    # A pixel that is written more than once keeps the last value: the nearest point.
    rows = np.clip(y[:, None] + dy[disk], 0, size - 1)
    columns = np.clip(x[:, None] + dx[disk], 0, size - 1)
    canvas[rows, columns] = pixels[far_first][:, None]
    return Image.fromarray(canvas)


def _rotate_to_camera(vectors: np.ndarray) -> np.ndarray:
    """Rotate vectors (right, top, front) into camera coordinates."""
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


def _compute_brightness(cloud: Cloud, order: list[int], depth: np.ndarray) -> np.ndarray:
    """Return the brightness of each point, in [0, 1]."""
    if cloud.normals is not None:
        return 0.35 + 0.65 * np.abs(_rotate_to_camera(cloud.normals[:, order]) @ LIGHT_DIRECTION)
    return 0.55 + 0.45 * (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
