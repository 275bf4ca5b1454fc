"""What a run has to show, and the file in its folder that keeps it for figures of a paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from recon.data.io.arrays import read_npz
from recon.data.io.file_checks import check_file, wrap_read_errors

REPORT_DATA_FILE = "report_data.npz"


class ReconstructedShape(NamedTuple):
    """One shape, what the student saw of it, and what it made of the rest."""

    name: str
    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visible: Float[np.ndarray, "v 3"]
    reconstructed: Float[np.ndarray, "r 3"]


class AttentionMap(NamedTuple):
    """One shape, and how much each query attends to each of its points."""

    name: str
    points: Float[np.ndarray, "n 3"]
    weights: Mapping[str, Float[np.ndarray, " n"]]


class TSNEEmbedding(NamedTuple):
    """Features of shapes, laid out so that neighbours stay neighbours."""

    coordinates: Float[np.ndarray, "n 2"]
    """In [0, 1]."""
    labels: Int[np.ndarray, " n"]
    """-1 where a shape has no class."""
    names: Sequence[str]
    classes: Sequence[str]


class ConfusionMatrix(NamedTuple):
    """Shapes of each class (rows) by predicted class (columns)."""

    counts: Int[np.ndarray, "c c"]
    classes: Sequence[str]


class ReportData(NamedTuple):
    """Pictures of a run; what it has none of stays empty."""

    curves: Mapping[str, Mapping[int, float]] = {}
    reconstructions: Sequence[ReconstructedShape] = ()
    attention_maps: Sequence[AttentionMap] = ()
    tsne: TSNEEmbedding | None = None
    confusion_matrix: ConfusionMatrix | None = None


def write_report_data(folder: Path, report_data: ReportData) -> None:
    """Keep what a run shows in its folder: plain arrays, and what names them as JSON."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"curves": report_data.curves}
    about["reconstructions"] = [shape.name for shape in report_data.reconstructions]
    for row, shape in enumerate(report_data.reconstructions):
        fields = shape._asdict()
        arrays |= {
            f"reconstructions/{row}/{n}": fields[n] for n in ("points", "visible", "reconstructed")
        }
        arrays[f"reconstructions/{row}/colors"] = shape.colors
    about["attention_maps"] = [
        [shape.name, list(shape.weights)] for shape in report_data.attention_maps
    ]
    for row, seen in enumerate(report_data.attention_maps):
        arrays[f"attention_maps/{row}/points"] = seen.points
        arrays |= {f"attention_maps/{row}/{query}": w for query, w in seen.weights.items()}
    if report_data.tsne is not None:
        about["tsne"] = {
            "names": list(report_data.tsne.names),
            "classes": list(report_data.tsne.classes),
        }
        arrays |= {
            "tsne/coordinates": report_data.tsne.coordinates,
            "tsne/labels": report_data.tsne.labels,
        }
    if report_data.confusion_matrix is not None:
        about["confusion"] = list(report_data.confusion_matrix.classes)
        arrays["confusion"] = report_data.confusion_matrix.counts
    np.savez_compressed(folder / REPORT_DATA_FILE, about=json.dumps(about), **arrays)


def read_report_data(folder: Path) -> ReportData:
    """Read what a run kept; raise FileNotFoundError or ValueError that names the file."""
    path = folder / REPORT_DATA_FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: name that of a finished run")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there: a run leaves it beside its report.html when it is finished"
        )
    held = read_npz(check_file(path))
    with wrap_read_errors(path, "file of a run's pictures"):
        about = json.loads(str(held["about"]))
        plane, classes = about.get("tsne"), about.get("confusion")
        return ReportData(
            {n: {int(k): v for k, v in curve.items()} for n, curve in about["curves"].items()},
            [
                ReconstructedShape(
                    name,
                    *(held[f"reconstructions/{row}/{n}"] for n in ReconstructedShape._fields[1:]),
                )
                for row, name in enumerate(about["reconstructions"])
            ],
            [
                AttentionMap(
                    name,
                    held[f"attention_maps/{row}/points"],
                    {query: held[f"attention_maps/{row}/{query}"] for query in queries},
                )
                for row, (name, queries) in enumerate(about["attention_maps"])
            ],
            plane and TSNEEmbedding(held["tsne/coordinates"], held["tsne/labels"], **plane),
            classes and ConfusionMatrix(held["confusion"], classes),
        )
