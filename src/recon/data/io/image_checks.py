"""Decode images to RGB after a check of their format, size and bit depth."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from recon.data.io.file_checks import UnsupportedContentError, wrap_read_errors

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are decoded; for some others Pillow starts external programs."""
MAX_PIXELS = 2**25
"""Maximum number of pixels of an image."""
MODES_32_BIT = ("I", "F")
"""Pillow's modes with 32 bits per pixel, whose range is not known."""
MAX_JPEG_SCANS = 100
"""Maximum number of scans of a progressive JPEG; ten are usual, and each decodes all pixels."""


def check_jpeg_scans(content: bytes) -> None:
    """Raise ValueError for a JPEG of more than `MAX_JPEG_SCANS` scans."""
    # Within the data of a scan the byte 0xFF is escaped, so every match starts a scan.
    if content[:2] == b"\xff\xd8" and (count := content.count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise UnsupportedContentError(
            f"a JPEG of {count} scans, the maximum is {MAX_JPEG_SCANS}: save the image again"
        )


def load_rgb(image: Image.Image, formats: Sequence[str] = IMAGE_FORMATS) -> Image.Image:
    """Load an opened image as RGB; 16 bits are scaled to 8.

    Raises ValueError as `check_image` does, or for 32 bits.
    """
    check_image(image, formats)
    # Pillow would clip these at 255 instead of scaling them.
    if image.mode in MODES_32_BIT:
        raise UnsupportedContentError(
            f"an image of mode {image.mode}: save it with 8 bits per channel"
        )
    if image.mode.startswith("I;16"):
        bright = np.rint(np.asarray(image) / 257).astype(np.uint8)
        return Image.fromarray(bright).convert("RGB")
    return image.convert("RGB")


def check_image(image: Image.Image, formats: Sequence[str] = IMAGE_FORMATS) -> None:
    """Raise ValueError for an opened image of an unsupported format or of too many pixels."""
    if image.format not in (None, *formats):
        raise UnsupportedContentError(
            f"an image of the format {image.format}: save it as one of {', '.join(formats)}"
        )
    if image.width * image.height > MAX_PIXELS:
        raise UnsupportedContentError(
            f"an image of {image.width} x {image.height} pixels, the maximum is {MAX_PIXELS:,} "
            "pixels: scale it down"
        )


def decode_image(content: bytes, source: Path | str) -> Image.Image:
    """Decode an image file's bytes to RGB; raise ValueError that names `source`."""
    with wrap_read_errors(source, "image"):
        check_jpeg_scans(content)
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            return load_rgb(image)
