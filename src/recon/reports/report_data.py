"""Store the data of a run's report as report_data.npz, and read it back for paper figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from recon.data.io.arrays import read_npz
from recon.data.io.file_checks import check_file, wrap_read_errors

REPORT_DATA_FILE = "report_data.npz"
REPORT_DATA_KIND = "report data file"
"""Name of the file's format in error messages."""


class ReconstructedShape(NamedTuple):
    """One shape, its visible patches, and the reconstruction of its masked patches."""

    name: str
    points: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    visible: Float[np.ndarray, "v 3"]
    reconstructed: Float[np.ndarray, "r 3"]


class AttentionMap(NamedTuple):
    """One shape, and the attention weight of each of its points, by query."""

    name: str
    points: Float[np.ndarray, "n 3"]
    weights: Mapping[str, Float[np.ndarray, " n"]]


class TSNEEmbedding(NamedTuple):
    """Two-dimensional t-SNE embedding of the features of shapes."""

    coordinates: Float[np.ndarray, "n 2"]
    """Scaled to [0, 1]."""
    labels: Int[np.ndarray, " n"]
    """Class indices, -1 for unlabeled shapes."""
    names: Sequence[str]
    classes: Sequence[str]


class ConfusionMatrix(NamedTuple):
    """Number of shapes by true class (rows) and predicted class (columns)."""

    counts: Int[np.ndarray, "c c"]
    classes: Sequence[str]


class ReportData(NamedTuple):
    """All plotted data of a report; parts that a run does not have stay empty."""

    curves: Mapping[str, Mapping[int, float]] = {}
    reconstructions: Sequence[ReconstructedShape] = ()
    attention_maps: Sequence[AttentionMap] = ()
    tsne: TSNEEmbedding | None = None
    confusion_matrix: ConfusionMatrix | None = None


def write_report_data(folder: Path, report_data: ReportData) -> None:
    """Write report_data.npz: plain arrays, and names as JSON under the key `about`."""
    arrays: dict[str, Any] = {}
    metadata: dict[str, Any] = {"curves": report_data.curves}
    metadata["reconstructions"] = [shape.name for shape in report_data.reconstructions]
    for row, shape in enumerate(report_data.reconstructions):
        fields = shape._asdict()
        arrays |= {
            f"reconstructions/{row}/{n}": fields[n] for n in ("points", "visible", "reconstructed")
        }
        arrays[f"reconstructions/{row}/colors"] = shape.colors
    metadata["attention_maps"] = [
        [shape.name, list(shape.weights)] for shape in report_data.attention_maps
    ]
    for row, attention in enumerate(report_data.attention_maps):
        arrays[f"attention_maps/{row}/points"] = attention.points
        arrays |= {f"attention_maps/{row}/{query}": w for query, w in attention.weights.items()}
    if report_data.tsne is not None:
        metadata["tsne"] = {
            "names": list(report_data.tsne.names),
            "classes": list(report_data.tsne.classes),
        }
        arrays |= {
            "tsne/coordinates": report_data.tsne.coordinates,
            "tsne/labels": report_data.tsne.labels,
        }
    if report_data.confusion_matrix is not None:
        metadata["confusion"] = list(report_data.confusion_matrix.classes)
        arrays["confusion"] = report_data.confusion_matrix.counts
    np.savez_compressed(folder / REPORT_DATA_FILE, about=json.dumps(metadata), **arrays)


def read_report_data(folder: Path) -> ReportData:
    """Read report_data.npz from the folder of a run.

    Raises FileNotFoundError for a missing folder or file, ValueError for an unreadable file; both
    messages name the path.
    """
    path = folder / REPORT_DATA_FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder: pass the folder of a finished run")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: file not found: a run writes it next to report.html when it finishes"
        )
    arrays = read_npz(check_file(path))
    with wrap_read_errors(path, REPORT_DATA_KIND):
        metadata = json.loads(str(arrays["about"]))
        embedding, classes = metadata.get("tsne"), metadata.get("confusion")
        return ReportData(
            {n: {int(k): v for k, v in curve.items()} for n, curve in metadata["curves"].items()},
            [
                ReconstructedShape(
                    name,
                    *(arrays[f"reconstructions/{row}/{n}"] for n in ReconstructedShape._fields[1:]),
                )
                for row, name in enumerate(metadata["reconstructions"])
            ],
            [
                AttentionMap(
                    name,
                    arrays[f"attention_maps/{row}/points"],
                    {query: arrays[f"attention_maps/{row}/{query}"] for query in queries},
                )
                for row, (name, queries) in enumerate(metadata["attention_maps"])
            ],
            embedding
            and TSNEEmbedding(arrays["tsne/coordinates"], arrays["tsne/labels"], **embedding),
            classes and ConfusionMatrix(arrays["confusion"], classes),
        )
