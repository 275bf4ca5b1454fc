"""Meshes of COLLADA files: sources, and primitives of corners that refer to them."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from recon.data.io.meshes.exchange.collada.holes import triangulate_rings
from recon.data.io.meshes.exchange.collada.materials import Look
from recon.data.io.meshes.exchange.strips import split_strips
from recon.data.io.meshes.exchange.xml_files import parse_numbers
from recon.data.io.meshes.surface import Surface, Texture
from recon.data.io.meshes.triangulation import triangulate

PRIMITIVES = ("triangles", "polylist", "polygons", "tristrips", "trifans")
TYPE_SIZES = {"float2": 2, "float3": 3, "float4": 4, "float3x3": 9, "float4x4": 16}
"""Numbers of a parameter of each type; one for others."""
Sources = Mapping[str, Float[np.ndarray, "n k"]]


class Primitive(NamedTuple):
    """Triangles of one material."""

    material: str | None
    vertices: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    """Indices of `vertices`."""
    colors: Float[np.ndarray, "t 3 3"] | None
    """Of the corners of the triangles."""
    uv: Mapping[str, Float[np.ndarray, "t 3 2"]]
    """Of the corners, by the number of the set; (0, 0) is the lower left corner of the image."""

    def build_surface(
        self, look: Look, vertices: Float[np.ndarray, "v 3"] | None = None
    ) -> Surface:
        """Return the surface with a material, optionally of deformed vertices."""
        vertices = self.vertices if vertices is None else vertices
        if len(vertices) != len(self.vertices):
            raise ValueError("its deformed mesh has another number of vertices")
        surface = Surface(vertices, self.triangles, base_color=look.color)
        if look.pixels is not None and self.uv:
            uv = self.uv.get(look.uv_set or "", next(iter(self.uv.values())))
            texture = Texture(look.pixels, uv * (1, -1) + (0, 1), look.wrap, look.is_nearest)
            return surface._replace(texture=texture)
        if self.colors is None:
            return surface
        corners = np.arange(3 * len(self.triangles)).reshape(-1, 3)
        vertices, colors = vertices[self.triangles].reshape(-1, 3), self.colors.reshape(-1, 3)
        return surface._replace(vertices=vertices, faces=corners, vertex_colors=colors)


class _Input(NamedTuple):
    semantic: str
    offset: int
    set_name: str
    values: Float[np.ndarray, "n k"]


def read_points(geometry: ET.Element) -> Float[np.ndarray, "v 3"]:
    """Return the vertices of a geometry."""
    for mesh in geometry.findall("mesh"):
        for semantic, values in _read_vertices(mesh, _read_sources(mesh)):
            if semantic == "POSITION":
                return values[:, :3]
    return np.empty((0, 3))


def read_primitives(geometry: ET.Element, notes: MutableMapping[str, None]) -> list[Primitive]:
    """Return the faces of a geometry; lines and curves are left out, the latter noted."""
    mesh = geometry.find("mesh")
    if mesh is None:
        mesh = geometry.find("convex_mesh")
    if mesh is None or mesh.get("convex_hull_of"):
        kind = next((child.tag for child in geometry if child.tag not in ("asset", "extra")), "")
        notes[f"geometries of the kind {kind!r:.50} are not read: left out"] = None
        return []
    sources = _read_sources(mesh)
    vertices = _read_vertices(mesh, sources)
    return [
        primitive
        for element in mesh
        if element.tag in PRIMITIVES and (primitive := _read_primitive(element, sources, vertices))
    ]


def _read_sources(mesh: ET.Element) -> Sources:
    """Return the arrays of numbers of a mesh by the names of their sources."""
    arrays = {
        item.get("id", ""): parse_numbers(item.text, np.float64)
        for name in ("float_array", "int_array")
        for item in mesh.iter(name)
    }
    sources = {}
    for source in mesh.iter("source"):
        accessor = source.find("technique_common/accessor")
        if accessor is not None:
            name = accessor.get("source", "").removeprefix("#")
            if name in arrays:
                sources[source.get("id", "")] = read_accessor(accessor, arrays[name])
    return sources


def read_accessor(accessor: ET.Element, array: Float[np.ndarray, " m"]) -> Float[np.ndarray, "n k"]:
    """Return the rows of an array; parameters without a name are skipped, as the format demands."""
    stride, offset = int(accessor.get("stride", 1)), int(accessor.get("offset", 0))
    count = int(accessor.get("count", 0))
    if stride < 1 or offset < 0 or not 0 <= offset + stride * count <= len(array):
        raise ValueError(f"an accessor declares {count} rows of {stride}, it has {len(array)}")
    rows = array[offset : offset + stride * count].reshape(count, stride)
    columns, start = list[int](), 0
    for item in accessor.findall("param"):
        size = TYPE_SIZES.get(item.get("type", ""), 1)
        columns += range(start, start + size) if item.get("name") else ()
        start += size
    return rows[:, columns] if columns and start <= stride else rows


def _read_vertices(mesh: ET.Element, sources: Sources) -> list[tuple[str, np.ndarray]]:
    """Return the semantics and values of the inputs that all vertices share."""
    return [
        (item.get("semantic", ""), sources[name])
        for item in mesh.findall("vertices/input")
        if (name := item.get("source", "").removeprefix("#")) in sources
    ]


def _read_primitive(
    element: ET.Element, sources: Sources, vertices: list[tuple[str, np.ndarray]]
) -> Primitive | None:
    inputs, width = _read_inputs(element, sources, vertices)
    by_semantic: dict[str, list[_Input]] = {}
    for item in inputs:
        by_semantic.setdefault(item.semantic, []).append(item)
    if "POSITION" not in by_semantic:
        raise ValueError("its faces have no positions")
    position = by_semantic["POSITION"][0]
    rows, triangles = _read_corners(element, width, position)
    if not len(triangles):
        return None
    for item in inputs:
        index = rows[:, item.offset]
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(item.values):
            raise ValueError(f"a face uses an index outside its {len(item.values)} values")
    corners = rows[triangles]
    colors = by_semantic.get("COLOR", [None])[0]
    return Primitive(
        element.get("material"),
        position.values[:, :3],
        corners[..., position.offset],
        None if colors is None else colors.values[corners[..., colors.offset], :3],
        {
            item.set_name: item.values[corners[..., item.offset], :2]
            for item in reversed(by_semantic.get("TEXCOORD", []))
        },
    )


def _read_inputs(
    element: ET.Element, sources: Sources, vertices: list[tuple[str, np.ndarray]]
) -> tuple[list[_Input], int]:
    """Return the inputs of a primitive, and the number of indices of each corner."""
    inputs, width = [], 1
    for item in element.findall("input"):
        offset, set_name = int(item.get("offset", 0)), item.get("set", "0")
        width = max(width, offset + 1)
        if item.get("semantic") == "VERTEX":
            inputs += [_Input(name, offset, set_name, values) for name, values in vertices]
        elif (name := item.get("source", "").removeprefix("#")) in sources:
            inputs.append(_Input(item.get("semantic", ""), offset, set_name, sources[name]))
    return inputs, width


def _read_corners(
    element: ET.Element, width: int, position: _Input
) -> tuple[Int[np.ndarray, "c w"], Int[np.ndarray, "t 3"]]:
    """Return the indices of all corners, and triangles as rows of them."""
    runs = [_parse_corners(item, width) for item in element.findall("p")]
    holed = [
        [_parse_corners(item, width) for item in group if item.tag in ("p", "h")]
        for group in element.findall("ph")
    ]
    rows = np.concatenate([*runs, *(ring for rings in holed for ring in rings), _no_rows(width)])
    lengths = np.array([len(run) for run in runs], np.int64)
    index = rows[:, position.offset]
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(position.values):
        raise ValueError(f"a face uses an index outside its {len(position.values)} vertices")
    if element.tag in ("tristrips", "trifans"):
        return rows, split_strips(lengths, is_fan=element.tag == "trifans")[0]
    counts = lengths
    if element.tag == "triangles":
        counts = np.full(lengths.sum() // 3, 3)
    elif element.tag == "polylist":
        counts = parse_numbers(element.findtext("vcount"), np.int64)
        if len(counts) and (counts.min() < 0 or counts.sum() > len(rows)):
            raise ValueError(f"its polygons declare {counts.sum()} corners, it has {len(rows)}")
    used = index[: int(counts.sum())]
    parts = [triangulate(position.values[:, :3], used, counts)[0]]
    start = int(lengths.sum())
    for rings in holed:
        points = [position.values[ring[:, position.offset], :3] for ring in rings]
        parts.append(start + triangulate_rings(points))
        start += sum(map(len, rings))
    return rows, np.concatenate(parts)


def _no_rows(width: int) -> Int[np.ndarray, "0 w"]:
    return np.empty((0, width), np.int64)


def _parse_corners(element: ET.Element, width: int) -> Int[np.ndarray, "c w"]:
    values = parse_numbers(element.text, np.int64)
    if len(values) % width:
        raise ValueError(f"{len(values)} indices do not form corners of {width}")
    return values.reshape(-1, width)
