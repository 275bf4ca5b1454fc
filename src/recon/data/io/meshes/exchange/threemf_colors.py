"""Colors and textures of the triangles of .3mf objects."""

import xml.etree.ElementTree as ET
from collections.abc import MutableMapping

import numpy as np
from jaxtyping import Float, Int, UInt8

from recon.data.io.meshes.exchange.archives import MeshArchive, normalize_name
from recon.data.io.meshes.exchange.threemf_model import GROUP_ITEMS, Model, Object
from recon.data.io.meshes.exchange.xml_files import get_local_name, parse_numbers
from recon.data.io.meshes.surface import Surface, Texture
from recon.data.io.meshes.textures import TextureLoader

WRAP_MODES = {"wrap": "repeat", "mirror": "mirror", "clamp": "clamp", "none": "clamp"}


class ColorReader:
    """Split objects by the kind of their colors."""

    def __init__(
        self, archive: MeshArchive, loader: TextureLoader, notes: MutableMapping[str, None]
    ) -> None:
        self.archive, self.loader, self.notes = archive, loader, notes

    def build_surfaces(self, item: Object, model: Model) -> list[Surface]:
        """Return the surfaces of an object: without color, with colors, and of each texture."""
        groups = np.array(item.groups, object)
        surfaces = []
        for name in dict.fromkeys(item.groups):
            rows = np.flatnonzero(groups == name)
            surface = Surface(item.vertices, item.triangles[rows])
            group = model.groups.get(name)
            if group is not None:
                surface = self._color(surface, group, item.properties[rows], model)
            surfaces.append(surface)
        return surfaces

    def _color(
        self, surface: Surface, group: ET.Element, rows: Int[np.ndarray, "t 3"], model: Model
    ) -> Surface:
        kind = get_local_name(group.tag)
        if kind == "texture2dgroup":
            return self._map(surface, group, rows, model)
        colors = self._read_colors(group, model)
        if colors is None:
            return surface
        corners = _take(colors, rows)
        if kind == "basematerials" or (rows == rows[:, :1]).all():
            return surface._replace(face_colors=corners[:, 0])
        return surface._replace(
            vertices=surface.vertices[surface.faces].reshape(-1, 3),
            faces=np.arange(3 * len(rows)).reshape(-1, 3),
            vertex_colors=corners.reshape(-1, 3),
        )

    def _read_colors(self, group: ET.Element, model: Model) -> UInt8[np.ndarray, "n 3"] | None:
        """Return the colors of a group, None with a note for one without."""
        kind = get_local_name(group.tag)
        items = [item for item in group if get_local_name(item.tag) == GROUP_ITEMS[kind]]
        if kind == "basematerials":
            return _parse_colors([item.get("displaycolor", "") for item in items])
        if kind == "colorgroup":
            return _parse_colors([item.get("color", "") for item in items])
        base = model.groups.get(group.get("matid", ""))
        if kind == "compositematerials" and base is not None:
            colors = self._read_colors(base, model)
            used = parse_numbers(group.get("matindices"), np.int64)
            if colors is not None:
                shares = np.array([parse_numbers(i.get("values"), np.float64) for i in items])
                mixed = shares @ _take(colors, used) / shares.sum(1, keepdims=True)
                return np.rint(mixed).astype(np.uint8)
        self.notes[f"colors of the kind {kind} are not read: left out"] = None
        return None

    def _map(
        self, surface: Surface, group: ET.Element, rows: Int[np.ndarray, "t 3"], model: Model
    ) -> Surface:
        texture = model.textures.get(group.get("texid", ""))
        if texture is None:
            raise ValueError(f"its texture {group.get('texid')!r:.50} is missing")
        name = normalize_name(texture.get("path", ""))
        if name not in self.archive.members:
            self.notes[f"the texture {name!r:.200} is missing: no colors from it"] = None
            return surface
        pixels = self.loader.decode(name, self.archive.read(name))
        places: Float[np.ndarray, "n 2"] = np.array(
            [(float(i.get("u", "")), 1 - float(i.get("v", ""))) for i in group]
        ).reshape(-1, 2)
        wrap = [WRAP_MODES.get(texture.get(f"tilestyle{c}", "wrap"), "repeat") for c in "uv"]
        is_nearest = texture.get("filter") == "nearest"
        uv = _take(places, rows)
        return surface._replace(texture=Texture(pixels, uv, (wrap[0], wrap[1]), is_nearest))


def _take(values: np.ndarray, rows: Int[np.ndarray, "*n"]) -> np.ndarray:
    if rows.size and not 0 <= rows.min() <= rows.max() < len(values):
        raise ValueError(f"a triangle uses a property outside its {len(values)} properties")
    return values[rows]


def _parse_colors(texts: list[str]) -> UInt8[np.ndarray, "n 3"]:
    """Return colors written as #RRGGBB or #RRGGBBAA."""
    values = [bytes.fromhex(text.strip().removeprefix("#"))[:3] for text in texts]
    if any(len(value) != 3 for value in values):
        raise ValueError("it has a color that is not written as #RRGGBB")
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, 3)
