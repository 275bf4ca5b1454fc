"""Opened pictures, looked at before they are loaded."""

import io
from pathlib import Path

from PIL import Image

from recon.data.io.file_checks import wrap_read_errors

IMAGE_FORMATS, MAX_PIXELS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"), 2**25
"""Of pictures: Pillow starts programs for some others, and unpacks as many pixels as there are."""


MODES_32_BIT = ("I", "F")
"""Of pictures: 32 bits a number."""
MAX_JPEG_SCANS = 100
"""Passes of a progressive JPEG, which has some ten: each goes over all pixels."""


def check_jpeg_scans(content: bytes) -> None:
    """Raise ValueError for a JPEG of passes without end; within one no such bytes can be."""
    if content[:2] == b"\xff\xd8" and (count := content.count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise ValueError(f"a JPEG of {count} passes, {MAX_JPEG_SCANS} are read")


def load_rgb(image: Image.Image) -> Image.Image:
    """Load an opened picture as RGB; raise what `check_picture` raises."""
    check_image(image)
    if image.mode in MODES_32_BIT or image.mode.startswith(
        "I;"
    ):  # Pillow would cut them off at 255
        raise ValueError(f"a picture of numbers of the kind {image.mode}: save it with 8 bits each")
    return image.convert("RGB")


def check_image(image: Image.Image) -> None:
    """Raise ValueError for an opened picture of another format, or of too many pixels."""
    if image.format not in (None, *IMAGE_FORMATS):
        raise ValueError(f"a picture of the format {image.format}, which is not read")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"a picture of {image.width} x {image.height}, {MAX_PIXELS:,} pixels are read"
        )


def decode_image(content: bytes, source: Path | str) -> Image.Image:
    """Decode a picture to RGB; raise ValueError that names its source."""
    with wrap_read_errors(source, "picture"):
        check_jpeg_scans(content)
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            return load_rgb(image)
