"""Divide triangle strips and fans into triangles."""

import numpy as np
from jaxtyping import Int


def split_strips(
    lengths: Int[np.ndarray, " n"], *, is_fan: bool = False
) -> tuple[Int[np.ndarray, "t 3"], Int[np.ndarray, " t"]]:
    """Return the triangles of strips with these numbers of corners, one after another.

    Triangles are places of corners; also returns the strip of each. With `is_fan`, the strips are
    fans around their first corners.
    """
    parts, start = [np.empty((0, 3), np.int64)], 0
    for length in lengths.tolist():
        first = np.arange(max(length - 2, 0))
        odd = first % 2
        if is_fan:
            parts.append(start + np.stack([0 * first, first + 1, first + 2], 1))
        else:  # every second triangle of a strip runs the other way
            parts.append(start + np.stack([first, first + 1 + odd, first + 2 - odd], 1))
        start += length
    return np.concatenate(parts), np.repeat(np.arange(len(lengths)), np.maximum(lengths - 2, 0))
