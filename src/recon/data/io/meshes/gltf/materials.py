"""Colors of glTF materials: factors, textures with their transforms, and samplers."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import UnidentifiedImageError

from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.gltf.container import GltfFile
from recon.data.io.meshes.gltf.uris import decode_file_name

SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
WEBP, TRANSFORM = "EXT_texture_webp", "KHR_texture_transform"
WRAP_MODES = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
"""Values of `wrapS` and `wrapT` of a sampler."""
NEAREST = 9728
"""Value of `magFilter` of a sampler that does not interpolate."""
OTHER_FORMATS = {b"\xabKTX 20\xbb": "KTX2", b"\xabKTX 11\xbb": "KTX", b"DDS ": "DDS"}
"""First bytes of image formats that other extensions add, which are not decoded."""


class ColorMap(NamedTuple):
    """The color texture of a material."""

    pixels: UInt8[np.ndarray, "h w 3"]
    uv_name: str
    """Attribute with the texture coordinates."""
    transform: Float[np.ndarray, "2 3"] | None
    """Affine transform of the texture coordinates."""
    wrap: tuple[str, str]
    is_nearest: bool


class Material(NamedTuple):
    """What a material says about colors."""

    factor: Float[np.ndarray, " 3"] | None = None
    """sRGB; None if the material does not set it."""
    color_map: ColorMap | None = None
    is_missing: bool = False
    """Whether the material has a texture that cannot be read."""


class Materials:
    """Read each material of a file once."""

    def __init__(self, file: GltfFile) -> None:
        self.file, self._materials = file, dict[int, Material]()

    def read(self, index: int | None) -> Material:
        """Return a material; None is the default one, which sets no color."""
        if index is None:
            return Material()
        if index not in self._materials:
            self._materials[index] = self._read(self.file.item("materials", index))
        return self._materials[index]

    def _read(self, material: Mapping[str, Any]) -> Material:
        names, values = (
            ("baseColorFactor", "baseColorTexture"),
            material.get("pbrMetallicRoughness", {}),
        )
        specular = material.get("extensions", {}).get(SPECULAR_GLOSSINESS)
        if specular is not None:
            names, values = ("diffuseFactor", "diffuseTexture"), specular
        factor = None
        if names[0] in values:
            linear = np.asarray(values[names[0]], np.float64)[:3]
            if linear.shape != (3,):
                raise ValueError(f"the color of a material has {linear.shape} numbers")
            factor = encode_srgb(linear)
        if names[1] not in values:
            return Material(factor)
        color_map = self._read_texture(values[names[1]])
        return Material(factor, color_map, is_missing=color_map is None)

    def _read_texture(self, info: Mapping[str, Any]) -> ColorMap | None:
        texture = self.file.item("textures", info["index"])
        pixels = self._decode(texture)
        if pixels is None:
            return None
        sampler = dict[str, Any]()
        if "sampler" in texture:
            sampler = self.file.item("samplers", texture["sampler"])
        wrap = (
            WRAP_MODES[sampler.get("wrapS", 10497)],
            WRAP_MODES[sampler.get("wrapT", 10497)],
        )
        transform = info.get("extensions", {}).get(TRANSFORM, {})
        number = transform.get("texCoord", info.get("texCoord", 0))
        return ColorMap(
            pixels,
            f"TEXCOORD_{number}",
            _read_uv_transform(transform),
            wrap,
            sampler.get("magFilter") == NEAREST,
        )

    def _decode(self, texture: Mapping[str, Any]) -> UInt8[np.ndarray, "h w 3"] | None:
        """Decode the image of a texture; None, with a note, if it is missing."""
        webp = texture.get("extensions", {}).get(WEBP, {})
        index = webp.get("source", texture.get("source"))
        if index is None:
            names = ", ".join(sorted(texture.get("extensions", {})))
            self.file.add_note(
                f"a texture has no image but that of {names or 'none'}: no colors from it"
            )
            return None
        image = self.file.item("images", index)
        content = self.file.read_image(image)
        if content is None:
            name = decode_file_name(image["uri"])
            self.file.add_note(f"the texture {name!r:.200} is missing: no colors from it")
            return None
        try:
            return self.file.images.decode(index, content)
        except UnidentifiedImageError:
            starts = (name for start, name in OTHER_FORMATS.items() if content.startswith(start))
            reason = f"a texture is {next(starts, 'neither PNG nor JPEG nor WebP')}"
            self.file.add_note(f"{reason}: no colors from it")
            return None


def _read_uv_transform(values: Mapping[str, Any]) -> Float[np.ndarray, "2 3"] | None:
    """Return the transform of KHR_texture_transform: scale, then rotation, then offset.

    A positive rotation turns coordinates counter-clockwise as seen in the image, whose second axis
    points down.
    """
    if not {"offset", "rotation", "scale"} & set(values):
        return None
    angle = values.get("rotation", 0.0)
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    scale = np.asarray(values.get("scale", (1, 1)), np.float64)
    offset = np.asarray(values.get("offset", (0, 0)), np.float64)
    return np.concatenate([rotation * scale, offset[:, None]], 1)
