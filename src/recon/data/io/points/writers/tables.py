"""Write points as .npz archives and .parquet tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recon.data.io.parquet import import_parquet
from recon.data.io.points.table import PointTable
from recon.data.io.points.writers.properties import find_free_name, list_columns

CLASS_KEY = "names"
"""Name of the array of class names in .npz, and of the entry of the schema in .parquet files."""


def write_npz(path: Path, table: PointTable, classes: Mapping[int, str]) -> Sequence[str]:
    """Write arrays `points`, `normals`, `colors` and all others by name. Return what changed."""
    arrays = {"points": np.asarray(table.points)}
    for name, values in (("normals", table.normals), ("colors", table.colors)):
        if values is not None:
            arrays[name] = np.asarray(values)
    taken, notes = {"points", "normals", "colors", "file", CLASS_KEY}, []
    for name, values in table.extra.items():
        key = find_free_name(name.replace("/", "_"), {*taken, *arrays})
        arrays[key] = values
        notes += [f"renamed {name!r} to {key}"] if key != name else []
    if classes:
        size = max(classes) + 1
        arrays[CLASS_KEY] = np.array([classes.get(n, str(n)) for n in range(size)])
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return notes


def write_parquet(path: Path, table: PointTable, classes: Mapping[int, str]) -> Sequence[str]:
    """Write a column for each property; the schema names the classes. Return what changed."""
    import pyarrow as pa

    columns = list_columns(table, ("nx", "ny", "nz"), ("red", "green", "blue"))
    arrays = {name: np.ascontiguousarray(_to_native(values)) for name, values in columns.items()}
    content = pa.table({name: pa.array(values) for name, values in arrays.items()})
    if classes:
        names = json.dumps({str(number): name for number, name in classes.items()})
        content = content.replace_schema_metadata({CLASS_KEY: names})
    import_parquet().write_table(content, path)
    return ()


def _to_native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
