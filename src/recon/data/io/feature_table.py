"""Read tables of shape features from .parquet files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.parquet import import_parquet, read_columns
from recon.utils.printable import check_printable

METADATA_KEY = b"recon"
"""Key of this library's entry in the metadata of a table."""
METADATA_FIELDS = ("about", "source", "skipped")
"""Fields of this entry: what features depend on, the checkpoint, and reasons of skipped shapes."""
FEATURE_COLUMNS = ("pooled", "cls", "image", "text", "image_projected", "text_projected")
"""Names of the columns of features; a table has those that its network provides."""


class FeatureTable(NamedTuple):
    """A table of features in memory; previews stay in the file until they are needed."""

    paths: list[str]
    labels: list[str | None]
    columns: dict[str, Float[np.ndarray, "n _"]]
    path: Path

    def read_previews(
        self, rows: Sequence[int]
    ) -> list[tuple[Float[np.ndarray, "p 3"], UInt8[np.ndarray, "p 3"] | None]]:
        """Read the preview points, in the unit sphere, and their colors of some rows."""
        names = ["preview", "preview_colors"]
        previews = []
        with wrap_read_errors(self.path, "feature table"):
            columns = read_columns(self.path, names).take(list(rows)).to_pydict()
            for points, colors in zip(*(columns[name] for name in names), strict=True):
                cloud = np.frombuffer(points, np.int8).reshape(-1, 3).astype(np.float32) / 127
                rgb = None if colors is None else np.frombuffer(colors, np.uint8).reshape(-1, 3)
                previews.append((cloud, rgb))
        return previews


def read_table_metadata(path: Path) -> dict[str, Any]:
    """Read a table's metadata: `METADATA_FIELDS`, and the feature `columns` that it has.

    Raises ValueError for a file that is not a table of features.
    """
    parquet = import_parquet()
    with wrap_read_errors(check_file(path), "Parquet table"):
        schema = parquet.read_schema(path)
        entries = schema.metadata or {}
    if METADATA_KEY not in entries:
        raise ValueError(
            f"{path}: contains no features: write such a file with python -m recon.embed"
        )
    with wrap_read_errors(path, "feature table"):
        num_rows = parquet.read_metadata(path).num_rows
        if num_rows > path.stat().st_size:  # the path of each row takes at least a byte
            raise ValueError(f"it declares {num_rows} rows, too many for its size")
        metadata = json.loads(entries[METADATA_KEY])
        if not isinstance(metadata, dict) or not all(
            isinstance(metadata.get(key), dict) for key in METADATA_FIELDS
        ):
            raise ValueError(f"its metadata lacks one of {', '.join(METADATA_FIELDS)}")
        return metadata | {"columns": [name for name in schema.names if name in FEATURE_COLUMNS]}


def read_feature_table(path: Path, columns: Sequence[str]) -> FeatureTable:
    """Read some columns of features of all shapes.

    Raises ValueError for a column that the table lacks, and for a damaged table.
    """
    available = read_table_metadata(path)["columns"]
    if missing := [name for name in columns if name not in available]:
        raise ValueError(f"{path}: has no column {missing[0]}: choose {', '.join(available)}")
    features = {}
    with wrap_read_errors(path, "feature table"):
        table = read_columns(path, ["path", "label", *columns])
        for name in columns:
            values = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise ValueError(f"its column {name} has values that are not finite numbers")
            features[name] = values.reshape(len(table), -1).copy()  # torch needs writable memory
        paths, labels = table["path"].to_pylist(), table["label"].to_pylist()
        names = (*paths, *filter(None, labels))
        if not all(isinstance(name, str) for name in names):
            raise ValueError("its paths or labels are not text")
        check_printable(names, path)
    return FeatureTable(paths, labels, features, path)
