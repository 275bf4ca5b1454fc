"""Diffuse colors and textures of UsdPreviewSurface materials."""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.exchange.archives import MeshArchive
from recon.data.io.meshes.textures import TextureLoader

WRAP_MODES = {"mirror": "mirror", "clamp": "clamp", "black": "clamp"}


class Look(NamedTuple):
    """What the colors of a mesh, or a part of it, are computed from."""

    notes: MutableMapping[str, None]
    color: Float[np.ndarray, " 3"] | None = None
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    uv_name: str = "st"
    """Primvar with the texture coordinates."""
    uv_matrix: Float[np.ndarray, "3 3"] = np.eye(3)
    """What the coordinates are transformed by first."""
    wrap: tuple[str, str] = ("repeat", "repeat")


class UsdMaterials:
    """Find the materials of prims."""

    def __init__(
        self, path: Path, loader: TextureLoader, time: Any, notes: MutableMapping[str, None]
    ) -> None:
        self.path, self.loader, self.time, self.notes = path, loader, time, notes
        self._looks: dict[object, Look] = {}
        self._raw: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def find(self, prim: Any, num_polygons: int) -> list[tuple[Bool[np.ndarray, " p"], Look]]:
        """Return the look of each part of a mesh, and which polygons it covers."""
        from pxr import UsdShade

        parts, rest = [], np.ones(num_polygons, np.bool_)
        for subset in UsdShade.MaterialBindingAPI(prim).GetMaterialBindSubsets():
            indices = np.array(subset.GetIndicesAttr().Get(self.time) or (), np.int64)
            mask = np.zeros(num_polygons, np.bool_)
            mask[indices[(indices >= 0) & (indices < num_polygons)]] = True
            parts.append((mask & rest, self._get_look(subset.GetPrim())))
            rest &= ~mask
        return [*parts, (rest, self._get_look(prim))]

    def _get_look(self, prim: Any) -> Look:
        from pxr import UsdShade

        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        if not material:
            return Look(self.notes)
        key = material.GetPath()
        if key not in self._looks:
            self._looks[key] = self._read(material)
        return self._looks[key]

    def _read(self, material: Any) -> Look:
        shader, *_ = material.ComputeSurfaceSource()
        if not shader or shader.GetIdAttr().Get() != "UsdPreviewSurface":
            self.notes["materials other than UsdPreviewSurface are not read"] = None
            return Look(self.notes)
        source = self._get_source(shader, "diffuseColor")
        if source is None:
            return Look(self.notes)
        node = _get_shader(source)
        if node is None:
            value = source.Get(self.time)
            if value is None or len(value) != 3:
                return Look(self.notes)
            return Look(self.notes, encode_srgb(np.array(value, np.float64)))
        kind = node.GetIdAttr().Get()
        if kind == "UsdUVTexture":
            return self._read_texture(node)
        if kind == "UsdPrimvarReader_float3" and self._get(node, "varname") == "displayColor":
            return Look(self.notes)
        self.notes[f"colors from the shader {kind!r:.100} are not read"] = None
        return Look(self.notes)

    def _get_source(self, shader: Any, name: str) -> Any:
        """Return the attribute that gives an input its value, through all connections."""
        found = shader.GetInput(name)
        attributes = found.GetValueProducingAttributes() if found else ()
        return attributes[0] if attributes else None

    def _get(self, shader: Any, name: str) -> Any:
        source = self._get_source(shader, name)
        return None if source is None else source.Get(self.time)

    def _read_texture(self, node: Any) -> Look:
        pixels = self._load(self._get(node, "file"))
        if pixels is None:
            return Look(self.notes)
        if self._get(node, "sourceColorSpace") == "raw":
            pixels = self._encode(pixels)
        color = None
        if (scale := self._get(node, "scale")) is not None and tuple(scale)[:3] != (1, 1, 1):
            color = encode_srgb(np.array(scale, np.float64)[:3])
        if (bias := self._get(node, "bias")) is not None and any(tuple(bias)[:3]):
            self.notes["the bias of a texture is not applied"] = None
        name, matrix = self._read_coordinates(node)
        wrap = [WRAP_MODES.get(str(self._get(node, f"wrap{c}")), "repeat") for c in "ST"]
        return Look(self.notes, color, pixels, name, matrix, (wrap[0], wrap[1]))

    def _encode(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return linear pixels as sRGB, the same array for the same pixels."""
        if id(pixels) not in self._raw:
            table = np.rint(255 * encode_srgb(np.arange(256) / 255)).astype(np.uint8)
            self._raw[id(pixels)] = pixels, table[pixels]
        return self._raw[id(pixels)][1]

    def _read_coordinates(self, node: Any) -> tuple[str, Float[np.ndarray, "3 3"]]:
        """Return the primvar and transformation of a texture's coordinates."""
        matrix, name = np.eye(3), "st"
        for _ in range(16):
            source = self._get_source(node, "st" if "UVTex" in str(_get_id(node)) else "in")
            node = None if source is None else _get_shader(source)
            if node is None:
                break
            if _get_id(node) == "UsdTransform2d":
                matrix = matrix @ self._read_transform(node)
            else:
                return str(self._get(node, "varname") or name), matrix
        return name, matrix

    def _read_transform(self, node: Any) -> Float[np.ndarray, "3 3"]:
        """Return the matrix that scales, rotates, then moves."""
        angle = np.radians(self._get(node, "rotation") or 0)
        scale = np.array(self._get(node, "scale") or (1, 1), np.float64)
        cosine, sine = np.cos(angle), np.sin(angle)
        matrix = np.eye(3)
        matrix[:2, :2] = np.array([[cosine, -sine], [sine, cosine]]) * scale
        matrix[:2, 2] = self._get(node, "translation") or (0, 0)
        return matrix

    def _load(self, asset: Any) -> UInt8[np.ndarray, "h w 3"] | None:
        """Decode an image beside the file, or inside a package."""
        if asset is None or not asset.path:
            return None
        resolved, _, member = str(asset.resolvedPath).partition("[")
        if member:
            archive = MeshArchive(Path(resolved))
            return self.loader.decode(str(asset.resolvedPath), archive.read(member.rstrip("]")))
        if not resolved:
            return self.loader.read(asset.path)
        return self.loader.read(os.path.relpath(resolved, self.path.resolve().parent))


def _get_shader(attribute: Any) -> Any:
    """Return the shader that an output belongs to, None for other attributes."""
    from pxr import UsdShade

    if not UsdShade.Output.IsOutput(attribute):
        return None
    shader = UsdShade.Shader(attribute.GetPrim())
    return shader if shader else None


def _get_id(shader: Any) -> Any:
    return shader.GetIdAttr().Get()
