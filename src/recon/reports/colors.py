"""Map classes, attention weights and reconstructions to point colors."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.colors import hsv_to_rgb

from recon.tasks.iou import IGNORE_INDEX

HUE_STEP = 0.618034
"""Hue difference between consecutive classes, as a fraction of the color wheel."""
CORRECT_COLOR, WRONG_COLOR, UNLABELED_COLOR = (190, 196, 206), (214, 39, 40), (120, 120, 120)
VISIBLE_COLOR, RECONSTRUCTED_COLOR = (90, 150, 230), (245, 130, 70)
HEATMAP_COLORS = np.array(
    [(110, 125, 150), (150, 160, 175), (240, 170, 80), (225, 90, 40), (150, 20, 30)]
)
"""Color scale from zero to the maximum, readable on light and dark backgrounds."""


def color_by_class(classes: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return one color per point by its class; unlabeled points are gray.

    Consecutive classes differ strongly in hue and brightness.
    """
    class_index = np.maximum(classes, 0)
    hue = (class_index * HUE_STEP) % 1
    value = np.where(class_index % 2, 0.95, 0.7)
    hsv = np.stack([hue, np.full_like(hue, 0.65), value], 1)
    colors = (255 * hsv_to_rgb(hsv)).astype(np.uint8)
    colors[classes == IGNORE_INDEX] = UNLABELED_COLOR
    return colors


def color_by_value(values: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return a heat-map color per value, scaled from 0 to the maximum."""
    position = np.clip(values, 0, None) / max(float(values.max()), 1e-12)
    position = position * (len(HEATMAP_COLORS) - 1)
    channels = [
        np.interp(position, range(len(HEATMAP_COLORS)), column) for column in HEATMAP_COLORS.T
    ]
    return np.stack(channels, 1).round().astype(np.uint8)


def uniform_color(count: int, color: tuple[int, int, int]) -> UInt8[np.ndarray, "n 3"]:
    """Return the same color for `count` points."""
    return np.tile(np.array(color, dtype=np.uint8), (count, 1))
