"""Decode the images of textures, up to a total number of pixels for each file."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.image_checks import IMAGE_FORMATS, check_jpeg_scans, load_rgb

TEXTURE_FORMATS = (*IMAGE_FORMATS, "TGA")
"""Formats of textures; TGA, which has no signature, is tried last."""
MAX_TEXTURE_PIXELS = 2**27
"""Maximum number of pixels of all color textures of a file."""
MAX_SIDECAR_BYTES = 2**26
"""Maximum size of a material or texture file of a mesh, in bytes."""
MAX_SIDECARS_BYTES = 4 * MAX_SIDECAR_BYTES
"""Maximum size of all material and texture files of a mesh together, in bytes."""


class TextureLoader:
    """Decode each image of a mesh file once; images in files are found near it.

    `notes` names the images that are missing or of other formats: their surfaces have no colors.
    """

    def __init__(self, mesh_path: Path) -> None:
        self.mesh_path, self.notes = mesh_path, list[str]()
        self.num_pixels = self.num_bytes = 0
        self._cache: dict[object, UInt8[np.ndarray, "h w 3"] | None] = {}

    def decode(self, key: object, content: bytes) -> UInt8[np.ndarray, "h w 3"]:
        """Decode an image file's bytes to sRGB; `key` identifies the image.

        Raises ValueError for other formats, damaged images and too many pixels.
        """
        if (cached := self._cache.get(key)) is not None:
            return cached
        check_jpeg_scans(content)
        with Image.open(io.BytesIO(content), formats=TEXTURE_FORMATS) as image:
            self.num_pixels += image.width * image.height
            if self.num_pixels > MAX_TEXTURE_PIXELS:
                raise UnsupportedContentError(
                    f"it has textures of {self.num_pixels:,} pixels, the maximum is "
                    f"{MAX_TEXTURE_PIXELS:,}: scale them down"
                )
            pixels = self._cache[key] = np.asarray(load_rgb(image, TEXTURE_FORMATS))
        return pixels

    def read(self, name: str) -> UInt8[np.ndarray, "h w 3"] | None:
        """Decode the image file `name`, relative to the mesh; None, with a note, without it.

        Backslashes separate folders, too. Where the named folder does not exist, the image is
        looked for beside the mesh.
        """
        if name in self._cache:
            return self._cache[name]
        path = self.find(name)
        if path is None:
            self.notes.append(f"the texture {name!r:.200} is missing: no colors from it")
            self._cache[name] = None
            return None
        try:
            return self.decode(name, self.read_bytes(path))
        except UnidentifiedImageError:
            formats = ", ".join(TEXTURE_FORMATS)
            self.notes.append(f"the texture {name!r:.200} is none of {formats}: no colors from it")
            self._cache[name] = None
            return None

    def read_bytes(self, path: Path) -> bytes:
        """Read a file beside the mesh.

        Raises ValueError where all together have more than `MAX_SIDECARS_BYTES`.
        """
        self.num_bytes += path.stat().st_size
        if self.num_bytes > MAX_SIDECARS_BYTES:
            raise UnsupportedContentError(
                f"its material and texture files have {self.num_bytes:,} bytes or more, the "
                f"maximum is {MAX_SIDECARS_BYTES:,}: merge materials or use smaller textures"
            )
        return path.read_bytes()

    def find(self, name: str, max_bytes: int = MAX_SIDECAR_BYTES) -> Path | None:
        """Return the path of a file beside the mesh or below its folder, None if it is missing.

        The folder above counts, too: ShapeNet keeps images in `../images`. Raises ValueError for a
        file of more than `max_bytes`.
        """
        folder, relative = self.mesh_path.parent, Path(name.replace("\\", "/"))
        for path in (folder / relative, folder / relative.name):
            is_inside = path.resolve().is_relative_to(folder.resolve().parent)
            if is_inside and path.is_file():
                if path.stat().st_size > max_bytes:
                    raise UnsupportedContentError(
                        f"its file {name!r:.200} has more than {max_bytes:,} bytes: use a "
                        "smaller one"
                    )
                return path
        return None
