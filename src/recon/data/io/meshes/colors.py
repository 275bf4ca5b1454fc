"""Colors of points on triangles: from vertices, faces, textures and materials."""

import numpy as np
from jaxtyping import Float, Int, Num

from recon.data.io.meshes.surface import Surface, Texture


def interpolate_colors(
    surface: Surface, faces: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n 3"]
) -> Num[np.ndarray, "n 3"] | None:
    """Return the colors of points given by a face and its corners' weights, None without colors.

    The result is sRGB as uint8. A texture comes first, and is multiplied by the color of its
    material; then vertex colors, face colors, and the color of the material alone. If
    `is_multiplied`, texture, material and vertex colors are all multiplied, as glTF demands.
    Products are taken in linear light.
    """
    factors = list[np.ndarray]()
    if surface.texture is not None:
        factors.append(sample_texture(surface.texture, faces, weights))
    if surface.vertex_colors is not None and (surface.is_multiplied or not factors):
        corner_colors = to_fractions(surface.vertex_colors)[surface.faces[faces]]
        factors.append(np.einsum("nk,nkc->nc", weights, corner_colors))
    elif surface.face_colors is not None and not factors:
        factors.append(to_fractions(surface.face_colors)[faces])
    is_own_color = surface.texture is None and bool(factors) and not surface.is_multiplied
    if surface.base_color is not None and not is_own_color:
        factors.append(np.broadcast_to(surface.base_color, (len(faces), 3)))
    factors = [f for f in factors if len(factors) == 1 or not (f == 1).all()] or factors[:1]
    if not factors:
        return None
    color = factors[0]
    if len(factors) > 1:
        color = encode_srgb(np.prod([decode_srgb(factor) for factor in factors], axis=0))
    return np.rint(255 * color.clip(0, 1)).astype(np.uint8)


def sample_texture(
    texture: Texture, faces: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Sample a texture bilinearly at points of faces; the center of the first pixel is at 0.5."""
    height, width = texture.pixels.shape[:2]
    place = np.einsum("nk,nkc->nc", weights, texture.uv[faces]) * (width, height)
    if texture.is_nearest:
        x, y = (
            _wrap(np.floor(place[:, i]).astype(np.int64), size, texture.wrap[i])
            for i, size in enumerate((width, height))
        )
        return texture.pixels[y, x] / 255
    place -= 0.5
    corner = np.floor(place).astype(np.int64)
    dx, dy = (place - corner).T[:, :, None]
    left, right = (_wrap(corner[:, 0] + step, width, texture.wrap[0]) for step in (0, 1))
    top, bottom = (_wrap(corner[:, 1] + step, height, texture.wrap[1]) for step in (0, 1))
    pixels = texture.pixels
    upper = (1 - dx) * pixels[top, left] + dx * pixels[top, right]
    lower = (1 - dx) * pixels[bottom, left] + dx * pixels[bottom, right]
    return ((1 - dy) * upper + dy * lower) / 255


def _wrap(index: Int[np.ndarray, " n"], size: int, mode: str) -> Int[np.ndarray, " n"]:
    """Return indices of pixels inside a row or column of `size` pixels."""
    if mode == "clamp":
        return index.clip(0, size - 1)
    if mode == "mirror":
        index = index % (2 * size)
        return np.minimum(index, 2 * size - 1 - index)
    return index % size


def to_fractions(colors: Num[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return uint8 colors as fractions; others are returned unchanged."""
    return colors / 255 if colors.dtype == np.uint8 else colors


def decode_srgb(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Convert sRGB fractions to linear light (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Convert linear light to sRGB fractions (IEC 61966-2-1)."""
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
