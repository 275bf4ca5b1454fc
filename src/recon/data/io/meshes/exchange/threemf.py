"""Read .3mf files: the objects that are built, with their colors and textures."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.exchange.archives import MeshArchive, normalize_name
from recon.data.io.meshes.exchange.placement import (
    MAX_DEPTH,
    check_num_triangles,
    join_surfaces,
    place_surface,
)
from recon.data.io.meshes.exchange.threemf_colors import ColorReader
from recon.data.io.meshes.exchange.threemf_model import Component, Model, parse_model
from recon.data.io.meshes.exchange.xml_files import parse_xml
from recon.data.io.meshes.surface import MeshContent, Surface
from recon.data.io.meshes.textures import TextureLoader
from recon.data.io.points.table import ReadOptions

MAX_3MF_BYTES = 2**29
"""Maximum size of a .3mf file, in bytes."""
UNIT_METERS = {
    "micron": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "inch": 0.0254,
    "foot": 0.3048,
    "meter": 1.0,
}
READ_EXTENSIONS = ("/material/", "/production/", "/slice/", "/beamlattice/", "/trianglesets/")
"""Parts of the addresses of extensions that are read, or whose omission is noted."""


def read_3mf(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of all objects that a file builds, in its unit; z points up.

    Raises ValueError that names the file.
    """
    check_file(path, MAX_3MF_BYTES)
    with wrap_read_errors(path, "3MF file"):
        package = _Package(path)
        surfaces = join_surfaces(package.build())
        unit = package.open(package.root).unit
        if unit not in UNIT_METERS:
            raise ValueError(f"its unit {unit!r:.50} is unknown")
        notes = (*package.notes, *package.colors.loader.notes)
        return MeshContent(surfaces, None, "z", UNIT_METERS[unit], notes)


class _Package:
    """Models of a package, and the surfaces of their objects."""

    def __init__(self, path: Path) -> None:
        self.archive, self.root = MeshArchive(path), ""
        self.root = find_root_model(self.archive)
        self.models: dict[str, Model] = {}
        self.surfaces: dict[tuple[str, str], list[Surface]] = {}
        self.notes, self.num_triangles = dict[str, None](), 0
        self.colors = ColorReader(self.archive, TextureLoader(path), self.notes)

    def open(self, name: str) -> Model:
        """Return a model of the package."""
        name = normalize_name(name)
        if name not in self.models:
            model = self.models[name] = parse_model(self.archive.read(name))
            for address in model.required:
                if not any(part in f"{address}/" for part in READ_EXTENSIONS):
                    raise UnsupportedContentError(
                        f"it needs the extension {address!r:.100}, which is not supported: export "
                        "it without"
                    )
            self.notes |= dict.fromkeys(model.notes)
        return self.models[name]

    def build(self) -> Iterator[Surface]:
        """Yield the surfaces of all build items."""
        for item in self.open(self.root).items:
            yield from self._place(item, self.root, np.eye(4), 0)

    def _place(
        self, item: Component, model_name: str, parent: Float[np.ndarray, "4 4"], depth: int
    ) -> Iterator[Surface]:
        """Yield the surfaces of an object and its components."""
        if depth > MAX_DEPTH:
            raise ValueError(f"its objects are nested more than {MAX_DEPTH} levels deep")
        model_name = normalize_name(item.path or model_name)
        model = self.open(model_name)
        found = model.objects.get(item.object_id)
        if found is None:
            raise ValueError(f"its object {item.object_id!r:.50} is missing")
        matrix = parent @ item.matrix
        self.num_triangles += 1 + len(found.triangles)
        check_num_triangles(self.num_triangles)
        key = model_name, item.object_id
        if key not in self.surfaces:
            self.surfaces[key] = self.colors.build_surfaces(found, model)
        for surface in self.surfaces[key]:
            yield place_surface(surface, matrix)
        for component in found.components:
            yield from self._place(component, model_name, matrix, depth + 1)


def find_root_model(archive: MeshArchive) -> str:
    """Return the name of the model that a package starts with."""
    if "_rels/.rels" in archive.members:
        for relation in parse_xml(archive.read("_rels/.rels")).iter("Relationship"):
            if relation.get("Type", "").endswith("/3dmodel"):
                return normalize_name(relation.get("Target", ""))
    names = [name for name in archive.members if posixpath.splitext(name)[1] == ".model"]
    if not names:
        raise ValueError("it contains no model")
    return min(names, key=lambda name: (name.count("/"), name))
