"""Find the properties of vertices in .off files."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

COORDINATES, NORMAL, TEXTURE = 3, 3, 2
"""Numbers of a vertex for each of its properties; its color has three or four."""


class OffLayout(NamedTuple):
    """Numbers of each vertex."""

    width: int
    normals: int | None = None
    """Column of the first number of the normal."""
    colors: int | None = None


def find_layout(
    line_widths: Int[np.ndarray, " n"],
    numbers: Float[np.ndarray, " m"],
    num_vertices: int,
    prefix: str,
) -> tuple[OffLayout, tuple[str, ...]]:
    """Find which numbers of a vertex are its normal and its color.

    The prefix names the properties; colors have three or four numbers, which the lines tell.
    """
    has_normals, has_colors, has_texture = "N" in prefix, "C" in prefix, "ST" in prefix
    base = COORDINATES + NORMAL * has_normals + TEXTURE * has_texture
    is_uniform = len(line_widths) == num_vertices > 0 and (line_widths == line_widths[0]).all()
    width = int(line_widths[0]) if is_uniform else base + 4 * has_colors
    if has_colors and width < base + 3:  # numbers of a vertex are on several lines
        width = base + 4
    elif not has_colors and width < base:
        width = base
    if has_colors and has_normals:
        num_color = width - base
        columns = numbers[: width * num_vertices].reshape(-1, width)
        return _order_properties(columns, num_color, prefix), ()
    if has_colors or width == base:
        return OffLayout(
            width, COORDINATES if has_normals else None, COORDINATES if has_colors else None
        ), ()
    if prefix or width not in (6, 7, 9, 10):
        note = f"{width - base} numbers of each vertex are not declared: omitted"
        return OffLayout(width, COORDINATES if has_normals else None), (note,)
    columns = numbers[: width * num_vertices].reshape(num_vertices, width)
    first = "normals" if _are_normals(columns[:, 3:6]) else "colors"
    note = f"its header does not declare the numbers after x y z of each vertex: read as {first}"
    if first == "normals":
        return OffLayout(width, 3, 6 if width > 7 else None), (note,)
    return OffLayout(width, None, 3), (note,)


def _order_properties(columns: Float[np.ndarray, "v w"], num_color: int, prefix: str) -> OffLayout:
    """Tell whether normals or colors come first: Geomview and MeshLab write different orders."""
    width = columns.shape[1]
    normal_first = OffLayout(width, COORDINATES, COORDINATES + NORMAL)
    color_first = OffLayout(width, COORDINATES + num_color, COORDINATES)
    layouts = [normal_first, color_first]
    if prefix.find("N") < prefix.find("C"):  # MeshLab's prefix
        layouts.reverse()
    for layout in layouts:
        if _are_normals(columns[:, layout.normals :][:, :3]):
            return layout
    for layout in layouts:
        if _are_colors(columns[:, layout.colors :][:, :3]):
            return layout
    return layouts[0]


def _are_normals(columns: Float[np.ndarray, "v 3"]) -> bool:
    is_unit = np.abs(np.linalg.norm(columns, axis=1) - 1) < 0.02
    return bool(is_unit.mean() > 0.9)


def _are_colors(columns: Float[np.ndarray, "v 3"]) -> bool:
    is_byte = bool((columns == np.rint(columns)).all()) and float(columns.max()) <= 255
    return float(columns.min()) >= 0 and (is_byte or float(columns.max()) <= 1)
