"""Colours of classes, of what was rebuilt, and of what is attended to."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.colors import hsv_to_rgb

from recon.tasks.iou import IGNORE_INDEX

HUE_STEP = 0.618034
"""Share of the colour wheel between one class and the next."""
CORRECT_COLOR, WRONG_COLOR, UNLABELED_COLOR = (190, 196, 206), (214, 39, 40), (120, 120, 120)
VISIBLE_COLOR, RECONSTRUCTED_COLOR = (90, 150, 230), (245, 130, 70)
HEATMAP_COLORS = np.array(
    [(110, 125, 150), (150, 160, 175), (240, 170, 80), (225, 90, 40), (150, 20, 30)]
)
"""From none to the most, told apart on light and on dark ground."""


def color_by_class(classes: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return a colour for the class of each point, unlike its neighbours'; grey without a class."""
    number = np.maximum(classes, 0)
    hue = (number * HUE_STEP) % 1
    value = np.where(number % 2, 0.95, 0.7)
    known = (255 * hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.65), value], 1))).astype(np.uint8)
    known[classes == IGNORE_INDEX] = UNLABELED_COLOR
    return known


def color_by_value(values: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return a colour for each value, from 0 to the largest."""
    share = np.clip(values, 0, None) / max(float(values.max()), 1e-12) * (len(HEATMAP_COLORS) - 1)
    channels = [np.interp(share, range(len(HEATMAP_COLORS)), column) for column in HEATMAP_COLORS.T]
    return np.stack(channels, 1).round().astype(np.uint8)


def uniform_color(count: int, color: tuple[int, int, int]) -> UInt8[np.ndarray, "n 3"]:
    """Return one colour for all points."""
    return np.tile(np.array(color, dtype=np.uint8), (count, 1))
