"""The pictures of a report, as one page that needs no other file."""

import base64
import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix

from recon.tasks.probe import Results

RADIUS = 1.25
"""Half the width of what a viewer shows, in units of the unit sphere."""
VISIBLE_COLOR, REBUILT_COLOR = (90, 150, 230), (245, 130, 70)


class Rebuilt(NamedTuple):
    """One shape, what the student saw of it, and what it made of the rest."""

    name: str
    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visible: Float[np.ndarray, "v 3"]
    rebuilt: Float[np.ndarray, "r 3"]


class Neighbour(NamedTuple):
    """One shape of a row of similar ones."""

    name: str
    label: str
    image: Image.Image
    same: bool
    """Whether it has the class of the row's first shape."""


class Page(NamedTuple):
    """All that a report shows."""

    results: Results
    trained: str
    titles: dict[str, str]
    notes: str
    history: dict[str, dict[int, float]]
    rebuilt: list[Rebuilt]
    neighbours: list[list[Neighbour]]
    classes: Sequence[str]
    truth: Int[np.ndarray, " n"]
    config: str
    seconds: float


class Cloud(NamedTuple):
    """A cloud as the page's viewer reads it."""

    points: str
    """Coordinates as base64 of little-endian int16, a full scale being `RADIUS`."""
    colors: str
    """RGB bytes, as base64."""


def write_page(path: Path, page: Page) -> None:
    """Render a report into one HTML file."""
    predicted = page.results.rows["pretrained"].predicted
    write_html(
        path,
        "report.html.jinja",
        page=page,
        config=page.config,
        curves=draw_curves(page.history),
        galleries=[(shape.name, _views(shape)) for shape in page.rebuilt],
        rows=[[(n, encode_image(n.image)) for n in row] for row in page.neighbours],
        confusion=confusion_matrix(page.truth, predicted).tolist(),
        radius=RADIUS,
    )


def write_html(path: Path, template: str, **values: object) -> None:
    """Render one of the package's templates; what the run was made with is told at its end."""
    environment = Environment(
        loader=PackageLoader("recon", "assets"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template(template).render(environment=_environment(), **values)
    path.write_text(text, encoding="utf-8")


def encode_cloud(points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]) -> Cloud:
    """Pack a cloud for the page's viewer."""
    scaled = np.clip(points / RADIUS, -1, 1) * np.iinfo(np.int16).max
    packed = scaled.round().astype("<i2").tobytes()
    return Cloud(*(base64.b64encode(data).decode() for data in (packed, colors.tobytes())))


def encode_image(image: Image.Image) -> str:
    """Return a picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_curves(history: dict[str, dict[int, float]]) -> str:
    """Draw each loss over the steps, raw and smoothed, as inline SVG."""
    if not history:
        return ""
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(2.9 * len(history), 2.3), layout="constrained")
        for axes, (name, points) in zip(
            np.atleast_1d(figure.subplots(1, len(history))), history.items(), strict=True
        ):
            steps, values = np.array([*points.items()]).T
            window = max(1, len(values) // 30)
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            axes.plot(steps, values, color="#9db8de", linewidth=0.6)
            axes.plot(steps[window - 1 :], smooth, color="#e8743b", linewidth=1.6)
            axes.set_title(name)
            if 0 < 10 * values.min() < values.max():
                axes.set_yscale("log")
            axes.set_xlabel("step")
            axes.spines["right"].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _views(shape: Rebuilt) -> list[tuple[str, Cloud]]:
    def flat(points: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
        return np.tile(np.array(color, dtype=np.uint8), (len(points), 1))

    seen = flat(shape.visible, VISIBLE_COLOR)
    both = np.concatenate([shape.visible, shape.rebuilt])
    return [
        ("original", encode_cloud(shape.points, shape.colors)),
        ("what the student sees", encode_cloud(shape.visible, seen)),
        (
            "rebuilt",
            encode_cloud(both, np.concatenate([seen, flat(shape.rebuilt, REBUILT_COLOR)])),
        ),
    ]


def _environment() -> dict[str, str]:
    packages = ("torch", "lightning", "timm", "scikit-learn", "numpy")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        **{name: version(name) for name in packages},
    }
