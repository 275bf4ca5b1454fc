"""Diffuse colors and textures of COLLADA materials."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, UInt8

from recon.data.io.meshes.exchange.archives import MeshArchive, normalize_name
from recon.data.io.meshes.exchange.xml_files import parse_numbers
from recon.data.io.meshes.textures import TextureLoader

WRAP_MODES = {"MIRROR": "mirror", "CLAMP": "clamp", "BORDER": "clamp", "NONE": "clamp"}


class Look(NamedTuple):
    """What the colors of a primitive are computed from."""

    color: Float[np.ndarray, " 3"] | None = None
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    uv_set: str | None = None
    """Number of the set of texture coordinates; None for the first."""
    wrap: tuple[str, str] = ("repeat", "repeat")
    is_nearest: bool = False


class ColladaMaterials:
    """Find the look that an instance of a mesh binds to a symbol of its primitives."""

    def __init__(
        self,
        root: ET.Element,
        ids: Mapping[str, ET.Element],
        loader: TextureLoader,
        archive: MeshArchive | None,
    ) -> None:
        self.root, self.ids, self.loader, self.archive = root, ids, loader, archive
        self._cache: dict[tuple[ET.Element, str | None], Look] = {}

    def find(self, instance: ET.Element, symbol: str | None) -> Look:
        """Return the look of the primitives with a symbol."""
        key = instance, symbol
        if key not in self._cache:
            binding = next(
                (i for i in instance.iter("instance_material") if i.get("symbol") == symbol), None
            )
            name = symbol if binding is None else binding.get("target")
            material = self.ids.get((name or "").removeprefix("#"))
            self._cache[key] = Look() if material is None else self._read(material, binding)
        return self._cache[key]

    def _read(self, material: ET.Element, binding: ET.Element | None) -> Look:
        reference = material.find("instance_effect")
        effect = self.ids.get(reference.get("url", "")[1:]) if reference is not None else None
        if effect is None or reference is None:
            return Look()
        params = {i.get("sid", ""): i for i in effect.iter("newparam")}
        params |= {i.get("ref", ""): i for i in reference.iter("setparam")}
        diffuse = _find_diffuse(effect)
        if diffuse is None:
            return Look()
        texture = diffuse.find("texture")
        if texture is not None:
            return self._read_texture(texture, params, binding)
        color = diffuse.find("color")
        reference = diffuse.find("param")
        if color is None and reference is not None:
            color = next(iter(params.get(reference.get("ref", ""), ())), None)
        values = parse_numbers(None if color is None else color.text, np.float64)
        return Look(values[:3].clip(0, 1) if len(values) >= 3 else None)

    def _read_texture(
        self, texture: ET.Element, params: Mapping[str, ET.Element], binding: ET.Element | None
    ) -> Look:
        sampler = params.get(texture.get("texture", ""))
        image = self._find_image(texture.get("texture", ""), sampler, params)
        if image is None:
            self.loader.notes.append("the image of a texture is not declared: no colors from it")
            return Look()
        uv_set = None
        for item in () if binding is None else binding.findall("bind_vertex_input"):
            if item.get("semantic") == texture.get("texcoord"):
                uv_set = item.get("input_set", "0")
        if sampler is None:
            return Look(None, self._read_image(image), uv_set)
        wrap = [WRAP_MODES.get(_text(sampler, f"sampler2D/wrap_{c}"), "repeat") for c in "st"]
        is_nearest = _text(sampler, "sampler2D/magfilter") == "NEAREST"
        return Look(None, self._read_image(image), uv_set, (wrap[0], wrap[1]), is_nearest)

    def _find_image(
        self, name: str, sampler: ET.Element | None, params: Mapping[str, ET.Element]
    ) -> ET.Element | None:
        """Return the image of a sampler; some files name the image itself."""
        if sampler is not None:
            instance = sampler.find("sampler2D/instance_image")
            surface = params.get(_text(sampler, "sampler2D/source"))
            if instance is not None:
                name = instance.get("url", "")[1:]
            elif surface is not None:
                name = _text(surface, "surface/init_from")
        image = self.ids.get(name)
        return image if image is not None and image.tag == "image" else None

    def _read_image(self, image: ET.Element) -> UInt8[np.ndarray, "h w 3"] | None:
        name = _text(image, "init_from/ref") or _text(image, "init_from")
        name = re.sub(r"^file:/*(?=/|[A-Za-z]:|[^/])", "", unquote(name))
        if self.archive is None:
            return self.loader.read(name)
        parts = [i for i in self.archive.members if i.endswith(normalize_name(name).split("/")[-1])]
        if not name or not parts:
            self.loader.notes.append(f"the texture {name!r:.200} is missing: no colors from it")
            return None
        return self.loader.decode(parts[0], self.archive.read(parts[0]))


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _find_diffuse(effect: ET.Element) -> ET.Element | None:
    """Return the diffuse color of an effect, or what a constant shader emits."""
    technique = effect.find("profile_COMMON/technique")
    if technique is None:
        return None
    for shader in technique:
        if shader.tag in ("phong", "lambert", "blinn", "constant"):
            return shader.find("emission" if shader.tag == "constant" else "diffuse")
    return None
