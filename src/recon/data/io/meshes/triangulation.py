"""Split polygons into triangles that cover the same area and keep its orientation."""

import mapbox_earcut
import numpy as np
from jaxtyping import Bool, Float, Int

from recon.data.io.file_checks import UnsupportedContentError

MAX_CONCAVE_CORNERS = 2**14
"""Maximum number of corners of a concave polygon: the time to split it grows with the square."""
CONVEX_TOLERANCE = 1e-12
"""Triangles that turn over by less than this fraction of the polygon's area are accepted."""


def triangulate(
    vertices: Float[np.ndarray, "v 3"], corners: Int[np.ndarray, " c"], sizes: Int[np.ndarray, " p"]
) -> tuple[Int[np.ndarray, "t 3"], Int[np.ndarray, " t"]]:
    """Split polygons into triangles; `corners` are their vertex indices, one after another.

    `sizes` are their numbers of corners. Returns each triangle's places in `corners`, and its
    polygon; polygons of fewer than three corners are omitted. Concave polygons are cut by ears in
    their plane. Raises ValueError for vertices that do not exist and too large concave polygons.
    """
    if (sizes == 3).all():
        return np.arange(len(corners)).reshape(-1, 3), np.arange(len(sizes))
    check_indices(corners, len(vertices))
    starts = np.cumsum(sizes) - sizes
    parts, owners = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    for size in np.unique(sizes[sizes > 2]):
        polygons = np.flatnonzero(sizes == size)
        places = starts[polygons, None] + np.arange(size)
        if size == 3:
            parts.append(places)
            owners.append(polygons)
            continue
        points = vertices[corners[places]]
        triangles, rows = _split_quads(points) if size == 4 else _split_polygons(points)
        parts.append(places[rows[:, None], triangles])
        owners.append(polygons[rows])
    triangles, owner = np.concatenate(parts), np.concatenate(owners)
    if len(parts) > 2:
        order = np.argsort(owner, kind="stable")
        triangles, owner = triangles[order], owner[order]
    return triangles, owner


def check_indices(indices: Int[np.ndarray, " c"], num_vertices: int) -> None:
    """Raise ValueError for indices of vertices that do not exist."""
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= num_vertices):
        raise UnsupportedContentError(
            f"a face uses a vertex index outside its {num_vertices} vertices: export it again"
        )


def _split_quads(
    points: Float[np.ndarray, "p 4 3"],
) -> tuple[Int[np.ndarray, "t 3"], Int[np.ndarray, " t"]]:
    """Split quads by the diagonal from their first corner, or else by the other one."""
    rows = np.repeat(np.arange(len(points)), 2)
    triangles = np.tile(np.array([[0, 1, 2], [0, 2, 3]]), (len(points), 1, 1))
    triangles[~_is_fan(points)] = [[1, 2, 3], [1, 3, 0]]
    return triangles.reshape(-1, 3), rows


def _is_fan(points: Float[np.ndarray, "p n 3"]) -> Bool[np.ndarray, " p"]:
    """Return whether no triangle of the fan around the first corner turns over.

    Polygons with coordinates that are not finite count as fans.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        spokes = points[:, 1:] - points[:, :1]
        a, b = np.moveaxis(spokes[:, :-1], 2, 0), np.moveaxis(spokes[:, 1:], 2, 0)
        cross = np.stack(
            [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
        )
        normal = cross.sum(2)  # twice the area of the polygon, along its normal
        turns = (cross * normal[:, :, None]).sum(0)
        limit = CONVEX_TOLERANCE * (normal**2).sum(0)
        is_valid: np.ndarray = ~(turns < -limit[:, None]).any(1)
    return is_valid | ~np.isfinite(limit)


def _split_polygons(
    points: Float[np.ndarray, "p n 3"],
) -> tuple[Int[np.ndarray, "t 3"], Int[np.ndarray, " t"]]:
    """Split convex polygons into fans, others by ears."""
    size = points.shape[1]
    is_fan = _is_fan(points)
    if not is_fan.all() and size > MAX_CONCAVE_CORNERS:
        raise UnsupportedContentError(
            f"it has a concave face of {size:,} corners, the maximum is {MAX_CONCAVE_CORNERS:,}: "
            "split it into triangles"
        )
    step = np.arange(1, size - 1)
    fan = np.stack([np.zeros_like(step), step, step + 1], 1)
    rows = np.flatnonzero(is_fan)
    parts, owners = [np.tile(fan, (len(rows), 1))], [np.repeat(rows, len(fan))]
    for row in np.flatnonzero(~is_fan):
        triangles = _cut_ears(points[row])
        parts.append(fan if triangles is None else triangles)
        owners.append(np.full(len(parts[-1]), row))
    return np.concatenate(parts), np.concatenate(owners)


def _cut_ears(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "t 3"] | None:
    """Split one polygon in the plane of its normal; return None if that leaves nothing."""
    centered = points - points.mean(0)
    centered /= max(float(np.abs(centered).max()), np.finfo(np.float64).tiny)
    normal = np.cross(centered, np.roll(centered, -1, axis=0)).sum(0)
    axis = int(np.abs(normal).argmax())
    if not np.isfinite(normal).all() or normal[axis] == 0:
        return None
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, np.eye(3)[(axis + 1) % 3])
    across /= np.linalg.norm(across)
    flat = np.stack([centered @ across, centered @ np.cross(normal, across)], 1)
    rings = np.array([len(flat)], np.uint32)
    triangles = mapbox_earcut.triangulate_float64(np.ascontiguousarray(flat), rings)
    triangles = triangles.astype(np.int64).reshape(-1, 3)
    if not len(triangles):
        return None
    first, second = flat[triangles[:, 1:]].transpose(1, 0, 2) - flat[triangles[:, 0]]
    is_flipped = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    triangles[is_flipped] = triangles[is_flipped, ::-1]
    return triangles
