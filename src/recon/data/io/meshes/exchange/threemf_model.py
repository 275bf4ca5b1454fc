"""Parse a model of a .3mf package: objects, components and groups of colors."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from recon.data.io.meshes.exchange.xml_files import get_local_name, iterate_xml, parse_numbers

GROUP_ITEMS = {
    "basematerials": "base",
    "colorgroup": "color",
    "texture2dgroup": "tex2coord",
    "compositematerials": "composite",
    "multiproperties": "multi",
}
"""Kinds of groups that triangles refer to, and their items."""
CORE_NAMES = ("vertex", "triangle", "component", "item", "object")
"""Names of elements that extensions use for others."""


class Component(NamedTuple):
    """A reference to an object."""

    object_id: str
    path: str
    """Model that contains it; empty for the same one."""
    matrix: Float[np.ndarray, "4 4"]


class Object(NamedTuple):
    """A mesh, or components."""

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    groups: list[str]
    """Group of the property of each triangle; empty for none."""
    properties: Int[np.ndarray, "t 3"]
    """Rows of the group for the corners of each triangle."""
    components: list[Component]


class Model(NamedTuple):
    """What a model file declares."""

    unit: str
    required: list[str]
    """Addresses of the extensions that a reader must know."""
    objects: Mapping[str, Object]
    groups: Mapping[str, ET.Element]
    textures: Mapping[str, ET.Element]
    items: list[Component]
    notes: list[str]


def parse_model(content: bytes) -> Model:
    """Parse the XML of a model; raise ValueError for damage and numbers out of range."""
    return _ModelParser().parse(content)


def _parse_matrix(text: str | None) -> Float[np.ndarray, "4 4"]:
    """Return a matrix for column vectors from twelve numbers for row vectors."""
    matrix = np.eye(4)
    if text is not None:
        matrix[:3] = parse_numbers(text, np.float64).reshape(4, 3).T
    return matrix


class _ModelParser:
    """Collect the elements of a model, and drop each when it ends."""

    def __init__(self) -> None:
        self.prefixes: dict[str, str] = {}
        self.root: ET.Element | None = None
        self.objects: dict[str, Object] = {}
        self.groups: dict[str, ET.Element] = {}
        self.textures: dict[str, ET.Element] = {}
        self.items, self.notes = list[Component](), list[str]()
        self._clear()

    def _clear(self) -> None:
        self.vertices, self.triangles = list[float](), list[int]()
        self.properties, self.components = list[tuple[str | None, ...]](), list[Component]()

    def parse(self, content: bytes) -> Model:
        for event, value in iterate_xml(content):
            if isinstance(value, tuple):
                self.prefixes[value[0]] = value[1]
            elif self.root is None:
                self.root = value
            elif event == "end":
                self._end(value)
        if self.root is None or get_local_name(self.root.tag) != "model":
            raise ValueError("its XML does not describe a model")
        names = self.root.get("requiredextensions", "").split()
        required = [self.prefixes.get(name, name) for name in names]
        unit = self.root.get("unit", "millimeter")
        return Model(
            unit, required, self.objects, self.groups, self.textures, self.items, self.notes
        )

    def _end(self, element: ET.Element) -> None:
        """Collect an element; slices have vertices in a namespace of their own."""
        get, name = element.get, get_local_name(element.tag)
        if name in CORE_NAMES and not self._is_core(element):
            return
        if name == "vertex":
            self.vertices += (float(get("x", "")), float(get("y", "")), float(get("z", "")))
            element.clear()
        elif name == "triangle":
            self.triangles += (int(get("v1", "")), int(get("v2", "")), int(get("v3", "")))
            self.properties.append((get("pid"), get("p1"), get("p2"), get("p3")))
            element.clear()
        elif name in ("component", "item"):
            path = next((v for key, v in element.items() if get_local_name(key) == "path"), "")
            matrix = _parse_matrix(get("transform"))
            found = Component(get("objectid", ""), path, matrix)
            (self.components if name == "component" else self.items).append(found)
        elif name == "object":
            self._end_object(element)
        else:
            self._end_resource(name, element)

    def _end_resource(self, name: str, element: ET.Element) -> None:
        if name in GROUP_ITEMS:
            self.groups[element.get("id", "")] = element
        elif name == "texture2d":
            self.textures[element.get("id", "")] = element
        elif name == "beamlattice":
            self.notes.append("the beams of a lattice are not read: left out")

    def _is_core(self, element: ET.Element) -> bool:
        """Return whether an element is in the namespace of the model itself."""
        return (
            self.root is not None
            and element.tag[: -len(get_local_name(element.tag))] == (self.root.tag[: -len("model")])
        )

    def _end_object(self, element: ET.Element) -> None:
        if element.get("meshresolution") == "lowres":
            self.notes.append("slices are not read: their meshes are of low resolution")
        vertices = np.array(self.vertices, np.float64).reshape(-1, 3)
        triangles = np.array(self.triangles, np.int64).reshape(-1, 3)
        if len(triangles) and not 0 <= triangles.min() <= triangles.max() < len(vertices):
            raise ValueError(f"a triangle uses a vertex outside its {len(vertices)} vertices")
        group, row = element.get("pid", ""), element.get("pindex", "0")
        groups, properties = list[str](), list[tuple[int, int, int]]()
        for pid, p1, p2, p3 in self.properties:
            first = int(row if p1 is None else p1)
            groups.append(group if pid is None else pid)
            properties.append((first, int(p2 or first), int(p3 or first)))
        self.objects[element.get("id", "")] = Object(
            vertices,
            triangles,
            groups,
            np.array(properties, np.int64).reshape(-1, 3),
            self.components,
        )
        self._clear()
        element.clear()
