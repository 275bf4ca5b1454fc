"""One page that needs no other file: sections of clouds to turn, curves, tables and maps."""

import base64
import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from recon.utils.atomic_write import write_atomic

VIEWER_RADIUS = 1.25
"""Half the width of what a viewer shows, in units of the unit sphere."""


class Section(NamedTuple):
    """One part of a page."""

    template: str
    """Name of its template among the package's parts."""
    title: str
    note: str
    values: dict[str, Any]
    """What the template shows."""


class EncodedCloud(NamedTuple):
    """A cloud as the page's viewer reads it."""

    points: str
    """Coordinates as base64 of little-endian int16, a full scale being `RADIUS`."""
    colors: str
    """RGB bytes, as base64."""


class GalleryItem(NamedTuple):
    """One cloud of a gallery."""

    caption: str
    cloud: EncodedCloud
    css_class: str = ""
    """`query`, `same`, or nothing."""


def write_page(
    path: Path, title: str, lead: str, sections: Sequence[Section | None], config: str = ""
) -> None:
    """Render the sections that there are, and what they were made with, into one HTML file."""
    environment = Environment(
        loader=PackageLoader("recon", "assets"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html.jinja").render(
        title=title,
        lead=lead,
        sections=[section for section in sections if section is not None],
        config=config,
        environment=_environment(),
    )
    write_atomic(path, text.encode())


def encode_cloud(
    points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]
) -> EncodedCloud:
    """Pack a cloud for the page's viewer."""
    scaled = np.clip(points / VIEWER_RADIUS, -1, 1) * np.iinfo(np.int16).max
    packed = scaled.round().astype("<i2").tobytes()
    return EncodedCloud(*(base64.b64encode(data).decode() for data in (packed, colors.tobytes())))


def encode_image(image: Image.Image) -> str:
    """Return a picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def build_gallery(
    title: str,
    note: str,
    groups: Sequence[Sequence[GalleryItem]],
    *,
    columns: int = 3,
    pixels: int = 420,
) -> Section | None:
    """Show clouds that the mouse turns, those of a group together; None where there are none."""
    if not groups:
        return None
    values = {"groups": groups, "columns": columns, "pixels": pixels}
    return Section("gallery", title, note, values)


def _environment() -> dict[str, str]:
    packages = ("recon-pointcloud", "torch", "lightning", "timm", "scikit-learn", "numpy")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        **{name: version(name) for name in packages},
    }
