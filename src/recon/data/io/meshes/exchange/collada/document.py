"""Read .dae and .zae files (COLLADA 1.4 and 1.5): the meshes of the scene with their materials."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.meshes.exchange.archives import MeshArchive, normalize_name
from recon.data.io.meshes.exchange.collada.materials import ColladaMaterials
from recon.data.io.meshes.exchange.collada.mesh import Primitive, read_points, read_primitives
from recon.data.io.meshes.exchange.collada.skin import Scene, deform_vertices
from recon.data.io.meshes.exchange.collada.transforms import read_matrix
from recon.data.io.meshes.exchange.placement import (
    MAX_DEPTH,
    check_num_triangles,
    join_surfaces,
    place_surface,
)
from recon.data.io.meshes.exchange.xml_files import parse_xml
from recon.data.io.meshes.surface import MeshContent, Surface
from recon.data.io.meshes.textures import TextureLoader
from recon.data.io.points.table import PointTable, ReadOptions

MAX_COLLADA_BYTES = 2**29
"""Maximum size of a COLLADA file, in bytes."""
UP_AXES = {"X_UP": "x", "Y_UP": "y", "Z_UP": "z"}


def read_collada(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of a file's scene in its own unit and axes, which it declares.

    Without faces, the vertices are its points. Skins are posed by their joints. Raises ValueError
    that names the file.
    """
    check_file(path, MAX_COLLADA_BYTES)
    with wrap_read_errors(path, "COLLADA file"):
        archive = MeshArchive(path) if path.read_bytes()[:4] == b"PK\3\4" else None
        root = parse_xml(archive.read(find_document(archive)) if archive else path.read_bytes())
        if root.tag != "COLLADA":
            raise ValueError(f"its XML describes {root.tag!r:.50}")
        return _ColladaScene(root, TextureLoader(path), archive).read()


def find_document(archive: MeshArchive) -> str:
    """Return the name of the document in an archive."""
    if "manifest.xml" in archive.members:
        name = unquote((parse_xml(archive.read("manifest.xml")).text or "").strip())
        name = name.partition("#")[0]
        if normalize_name(name) in archive.members:
            return name
    names = [name for name in archive.members if name.endswith(".dae")]
    if not names:
        raise ValueError("it contains no .dae file")
    return min(names, key=lambda name: ("__macosx" in name, name.count("/"), name))


class _ColladaScene:
    """Collect the placed meshes of a COLLADA document."""

    def __init__(
        self, root: ET.Element, loader: TextureLoader, archive: MeshArchive | None
    ) -> None:
        self.root, self.loader = root, loader
        self.ids = {name: item for item in root.iter() if (name := item.get("id"))}
        self.materials = ColladaMaterials(root, self.ids, loader, archive)
        self.matrices: dict[ET.Element, Float[np.ndarray, "4 4"]] = {}
        self.primitives: dict[ET.Element, list[Primitive]] = {}
        self.notes, self.num_triangles = dict[str, None](), 0

    def read(self) -> MeshContent:
        """Return all surfaces, and what the document declares."""
        placed = list(self._walk(self._find_scene_nodes()))
        surfaces = join_surfaces(
            surface for instance, matrix in placed for surface in self._place(instance, matrix)
        )
        points = None if surfaces else self._collect_points(placed)
        unit = self.root.find("asset/unit")
        up = (self.root.findtext("asset/up_axis") or "Y_UP").strip()
        meters = None if unit is None else float(unit.get("meter", "1").replace(",", "."))
        notes = (*self.notes, *self.loader.notes)
        return MeshContent(surfaces, points, UP_AXES.get(up), meters or None, notes)

    def find(self, url: str | None) -> ET.Element | None:
        """Return the element that a URL of this document refers to; others are noted."""
        target = self.ids.get((url or "").removeprefix("#"))
        if target is None:
            self.notes[f"the element {url!r:.100} is not in the file: left out"] = None
        return target

    def _find_scene_nodes(self) -> list[ET.Element]:
        instance = self.root.find("scene/instance_visual_scene")
        scene = self.find(instance.get("url")) if instance is not None else None
        if scene is None:
            scene = self.root.find("library_visual_scenes/visual_scene")
        if scene is not None:
            return [scene]
        scene, meshes = ET.Element("node"), self.root.iter("geometry")
        for mesh in list(meshes):  # a library without a scene
            ET.SubElement(scene, "instance_geometry", url=f"#{mesh.get('id')}")
        return [scene]

    def _walk(
        self, nodes: list[ET.Element]
    ) -> Iterator[tuple[ET.Element, Float[np.ndarray, "4 4"]]]:
        """Yield each instance of a mesh with the matrix of its node."""
        stack = [(node, np.eye(4), 0) for node in reversed(nodes)]
        visits = 0
        while stack:
            node, parent, depth = stack.pop()
            visits += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"its nodes are nested more than {MAX_DEPTH} levels deep")
            check_num_triangles(visits)
            matrix = parent @ read_matrix(node)
            self.matrices.setdefault(node, matrix)
            children = []
            for child in node:
                if child.tag in ("instance_geometry", "instance_controller"):
                    yield child, matrix
                elif child.tag == "node":
                    children.append((child, matrix, depth + 1))
                elif child.tag == "instance_node" and (target := self.find(child.get("url"))):
                    children.append((target, matrix, depth + 1))
            stack.extend(reversed(children))

    def _place(self, instance: ET.Element, matrix: Float[np.ndarray, "4 4"]) -> Iterator[Surface]:
        """Yield the surfaces of one instance of a mesh."""
        target = self.find(instance.get("url"))
        if target is None:
            return
        deformed, is_posed, mesh = None, False, target
        if target.tag == "controller":
            scene = Scene(self.root, self.ids, self.matrices, self.notes)
            deformed, mesh, is_posed = deform_vertices(target, instance, scene)
        if mesh not in self.primitives:
            self.primitives[mesh] = read_primitives(mesh, self.notes)
        for primitive in self.primitives[mesh]:
            self.num_triangles += len(primitive.triangles)
            check_num_triangles(self.num_triangles)
            look = self.materials.find(instance, primitive.material)
            surface = primitive.build_surface(look, deformed)
            yield surface if is_posed else place_surface(surface, matrix)

    def _collect_points(
        self, placed: list[tuple[ET.Element, Float[np.ndarray, "4 4"]]]
    ) -> PointTable | None:
        clouds = []
        for instance, matrix in placed:
            mesh = self.find(instance.get("url"))
            if mesh is not None and len(points := read_points(mesh)):
                clouds.append(points @ matrix[:3, :3].T + matrix[:3, 3])
        return PointTable(np.concatenate(clouds)) if clouds else None
