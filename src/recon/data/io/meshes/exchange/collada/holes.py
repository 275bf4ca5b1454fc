"""Divide polygons with holes into triangles."""

from collections.abc import Sequence

import mapbox_earcut
import numpy as np
from jaxtyping import Float, Int

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.triangulation import MAX_CONCAVE_CORNERS


def triangulate_rings(rings: Sequence[Float[np.ndarray, "_ 3"]]) -> Int[np.ndarray, "t 3"]:
    """Return the triangles of a flat polygon: its outline, and the outlines of its holes.

    Triangles are positions in the joined outlines; they point to the side of the first outline.
    Raises ValueError for too many corners.
    """
    if (count := sum(map(len, rings))) > MAX_CONCAVE_CORNERS:
        raise UnsupportedContentError(
            f"it has a face with holes of {count:,} corners, the maximum is "
            f"{MAX_CONCAVE_CORNERS:,}: split it into triangles"
        )
    outline = rings[0] - rings[0][0]
    normal = np.cross(outline[1:-1], outline[2:]).sum(0)
    length = float(np.linalg.norm(normal))
    if length == 0 or not np.isfinite(length):
        return np.empty((0, 3), np.int64)
    normal = normal / length
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first = first / np.linalg.norm(first)
    axes = np.stack([first, np.cross(normal, first)], 1)
    flat = (np.concatenate(rings) - rings[0][0]) @ axes
    ends = np.cumsum([len(ring) for ring in rings]).astype(np.uint32)
    cut = mapbox_earcut.triangulate_float64(np.ascontiguousarray(flat), ends)
    cut = cut.astype(np.int64).reshape(-1, 3)
    edges = flat[cut[:, 1:]] - flat[cut[:, :1]]
    is_reversed = edges[:, 0, 0] * edges[:, 1, 1] < edges[:, 0, 1] * edges[:, 1, 0]
    cut[is_reversed] = cut[is_reversed][:, ::-1]
    return cut
