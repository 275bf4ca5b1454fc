"""Divide polygons with any number of corners, concave ones and ones with holes, into triangles."""

from collections.abc import Sequence

import mapbox_earcut
import numpy as np
from jaxtyping import Float, Int


def triangulate_polygons(
    vertices: Float[np.ndarray, "v 3"],
    corners: Int[np.ndarray, " c"],
    counts: Int[np.ndarray, " p"],
) -> Int[np.ndarray, "t 3"]:
    """Return the triangles of polygons as positions in `corners`.

    `corners` holds the vertices of all polygons, `counts` the number of corners of each. Polygons
    of fewer than three corners give no triangles.
    """
    starts = np.cumsum(counts) - counts
    if (counts == 3).all():
        return starts[:, None] + np.arange(3)
    order, parts = [], []
    for count in np.unique(counts[counts >= 3]):
        rows = np.flatnonzero(counts == count)
        for group in np.array_split(rows, 1 + len(rows) * int(count) // 2**22):
            triangles, owners = _triangulate_equal(vertices, corners, starts[group], int(count))
            parts.append(triangles)
            order.append(group[owners])
    if not parts:
        return np.empty((0, 3), np.int64)
    return np.concatenate(parts)[np.argsort(np.concatenate(order), kind="stable")]


def _triangulate_equal(
    vertices: Float[np.ndarray, "v 3"],
    corners: Int[np.ndarray, " c"],
    starts: Int[np.ndarray, " p"],
    count: int,
) -> tuple[Int[np.ndarray, "t 3"], Int[np.ndarray, " t"]]:
    """Return the triangles of polygons with `count` corners, and the polygon of each."""
    first = np.arange(1, count - 1)
    fan = np.stack([np.zeros_like(first), first, first + 1], 1)
    triangles = starts[:, None, None] + fan
    owners = np.repeat(np.arange(len(starts)), len(fan))
    if count == 3:
        return triangles.reshape(-1, 3), owners
    points = vertices[corners[starts[:, None] + np.arange(count)]].astype(np.float64)
    points = points - points[:, :1]
    area = np.cross(points[:, 1:-1], points[:, 2:])
    # Triangles that point to the same side as the polygon cover it without overlap.
    is_plain = (np.einsum("pkc,pc->pk", area, area.sum(1)) >= 0).all(1)
    if is_plain.all():
        return triangles.reshape(-1, 3), owners
    parts, order = (
        [triangles[is_plain].reshape(-1, 3)],
        [np.repeat(np.flatnonzero(is_plain), len(fan))],
    )
    for row in np.flatnonzero(~is_plain):
        cut = triangulate_rings([points[row]])
        parts.append(starts[row] + cut)
        order.append(np.full(len(cut), row))
    return np.concatenate(parts), np.concatenate(order)


def triangulate_rings(rings: Sequence[Float[np.ndarray, "_ 3"]]) -> Int[np.ndarray, "t 3"]:
    """Return the triangles of a flat polygon: its outline, and the outlines of its holes.

    Triangles are positions in the joined outlines; they point to the side of the first outline.
    """
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
    cut = mapbox_earcut.triangulate_float64(flat, ends).astype(np.int64).reshape(-1, 3)
    edges = flat[cut[:, 1:]] - flat[cut[:, :1]]
    is_reversed = edges[:, 0, 0] * edges[:, 1, 1] < edges[:, 0, 1] * edges[:, 1, 0]
    cut[is_reversed] = cut[is_reversed][:, ::-1]
    return cut
