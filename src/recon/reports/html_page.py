"""Render a report as one self-contained HTML file with interactive point-cloud viewers."""

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
"""Half the side length of the cube that a viewer shows, in radii of the unit sphere."""
LISTED_PACKAGES = ("recon-pointcloud", "torch", "lightning", "timm", "scikit-learn", "numpy")
"""Packages whose versions a page lists."""


class Section(NamedTuple):
    """One section of a page."""

    template: str
    """Name of its template in `assets/parts`."""
    title: str
    note: str
    values: dict[str, Any]
    """Variables of the template."""


class EncodedCloud(NamedTuple):
    """A point cloud in the format of the page's viewer."""

    points: str
    """Coordinates as base64 of little-endian int16; the maximum is `VIEWER_RADIUS`."""
    colors: str
    """RGB bytes, as base64."""


class GalleryItem(NamedTuple):
    """One point cloud of a gallery."""

    caption: str
    cloud: EncodedCloud
    css_class: str = ""
    """`query`, `same` (same class as the query), or empty."""


def write_page(
    path: Path, title: str, lead: str, sections: Sequence[Section | None], config: str = ""
) -> None:
    """Render sections, software versions and configuration into one HTML file.

    Sections that are None are skipped.
    """
    environment = Environment(
        loader=PackageLoader("recon", "assets"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html.jinja").render(
        title=title,
        lead=lead,
        sections=[section for section in sections if section is not None],
        config=config,
        environment=_describe_environment(),
    )
    write_atomic(path, text.encode())


def write_run_page(folder: Path, title: str, lead: str, sections: Sequence[Section | None]) -> None:
    """Write report.html of a run, with the configuration from its config.yaml if there is one."""
    config = folder / "config.yaml"
    text = config.read_text() if config.is_file() else ""
    write_page(folder / "report.html", title, lead, sections, text)


def get_run_name(folder: Path) -> str:
    """Return the last two parts of a run's folder, by default its name and start time."""
    return "/".join(folder.absolute().parts[-2:])


def encode_cloud(
    points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]
) -> EncodedCloud:
    """Encode a point cloud for the page's viewer; coordinates are clipped to `VIEWER_RADIUS`."""
    scaled = np.clip(points / VIEWER_RADIUS, -1, 1) * np.iinfo(np.int16).max
    packed = scaled.round().astype("<i2").tobytes()
    return EncodedCloud(*(base64.b64encode(data).decode() for data in (packed, colors.tobytes())))


def encode_image(image: Image.Image) -> str:
    """Return an image as a data URI."""
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
    """Build a section of rotatable clouds, None without clouds.

    The clouds of a group rotate together.
    """
    if not groups:
        return None
    values = {"groups": groups, "columns": columns, "pixels": pixels}
    return Section("gallery", title, note, values)


def _describe_environment() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        **{name: version(name) for name in LISTED_PACKAGES},
    }
