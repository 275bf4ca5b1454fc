"""What a run has to show, and the file in its folder that keeps it for figures of a paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from recon.data.io.arrays import check_file, naming, read_npz

FILE = "exhibits.npz"


class Rebuilt(NamedTuple):
    """One shape, what the student saw of it, and what it made of the rest."""

    name: str
    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visible: Float[np.ndarray, "v 3"]
    rebuilt: Float[np.ndarray, "r 3"]


class Attended(NamedTuple):
    """One shape, and how much each query attends to each of its points."""

    name: str
    points: Float[np.ndarray, "n 3"]
    weights: Mapping[str, Float[np.ndarray, " n"]]


class Plane(NamedTuple):
    """Features of shapes, laid out so that neighbours stay neighbours."""

    places: Float[np.ndarray, "n 2"]
    """In [0, 1]."""
    labels: Int[np.ndarray, " n"]
    """-1 where a shape has no class."""
    names: Sequence[str]
    classes: Sequence[str]


class Confusion(NamedTuple):
    """Shapes of each class (rows) by predicted class (columns)."""

    counts: Int[np.ndarray, "c c"]
    classes: Sequence[str]


class Exhibits(NamedTuple):
    """Pictures of a run; what it has none of stays empty."""

    curves: Mapping[str, Mapping[int, float]] = {}
    rebuilt: Sequence[Rebuilt] = ()
    attended: Sequence[Attended] = ()
    plane: Plane | None = None
    confusion: Confusion | None = None


def write_exhibits(folder: Path, shown: Exhibits) -> None:
    """Keep what a run shows in its folder: plain arrays, and what names them as JSON."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"curves": shown.curves}
    about["rebuilt"] = [shape.name for shape in shown.rebuilt]
    for row, shape in enumerate(shown.rebuilt):
        fields = shape._asdict()
        arrays |= {f"rebuilt/{row}/{n}": fields[n] for n in ("points", "visible", "rebuilt")}
        arrays[f"rebuilt/{row}/colors"] = shape.colors
    about["attended"] = [[shape.name, list(shape.weights)] for shape in shown.attended]
    for row, seen in enumerate(shown.attended):
        arrays[f"attended/{row}/points"] = seen.points
        arrays |= {f"attended/{row}/{query}": w for query, w in seen.weights.items()}
    if shown.plane is not None:
        about["plane"] = {"names": list(shown.plane.names), "classes": list(shown.plane.classes)}
        arrays |= {"plane/places": shown.plane.places, "plane/labels": shown.plane.labels}
    if shown.confusion is not None:
        about["confusion"] = list(shown.confusion.classes)
        arrays["confusion"] = shown.confusion.counts
    np.savez_compressed(folder / FILE, about=json.dumps(about), **arrays)


def read_exhibits(folder: Path) -> Exhibits:
    """Read what a run kept; raise FileNotFoundError or ValueError that names the file."""
    path = folder / FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: name that of a finished run")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there: a run leaves it beside its report.html when it is finished"
        )
    held = read_npz(check_file(path))
    with naming(path, "file of a run's pictures"):
        about = json.loads(str(held["about"]))
        plane, classes = about.get("plane"), about.get("confusion")
        return Exhibits(
            {n: {int(k): v for k, v in curve.items()} for n, curve in about["curves"].items()},
            [
                Rebuilt(name, *(held[f"rebuilt/{row}/{n}"] for n in Rebuilt._fields[1:]))
                for row, name in enumerate(about["rebuilt"])
            ],
            [
                Attended(
                    name,
                    held[f"attended/{row}/points"],
                    {query: held[f"attended/{row}/{query}"] for query in queries},
                )
                for row, (name, queries) in enumerate(about["attended"])
            ],
            plane and Plane(held["plane/places"], held["plane/labels"], **plane),
            classes and Confusion(held["confusion"], classes),
        )
