"""Write shape features to a .parquet file part by part, so that a stopped run can resume.

Each part is written atomically to the folder `<out>.parts`. When all shapes are done, the parts are
joined to the file `out`. What the features depend on is stored in its metadata under `recon`.
"""

import glob
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int8, Num, UInt8
from torch import Tensor

from recon.data.io.feature_table import FEATURE_COLUMNS, METADATA_KEY, read_table_metadata
from recon.data.io.parquet import import_parquet, read_columns
from recon.data.transforms import UnitSphere
from recon.utils.atomic_write import atomic_path

ROWS_PER_WRITE = 4096
"""Minimum number of rows that are written to the finished file at a time."""
NUM_PREVIEW_POINTS = 1024
"""Maximum number of points stored per shape to draw it."""


def build_preview(
    points: Float[Tensor, "n 3"], colors: Num[np.ndarray, "n 3"] | None, name: str
) -> tuple[Int8[np.ndarray, "p 3"], UInt8[np.ndarray, "p 3"] | None]:
    """Sample preview points and their colors, seeded by the shape's `name`.

    The points are centered and scaled to a radius of 127.
    """
    rows: Any = slice(None)
    if len(points) > NUM_PREVIEW_POINTS:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        rows = rng.choice(len(points), NUM_PREVIEW_POINTS, replace=False, shuffle=False)
    unit = UnitSphere()(points[None].float())[0].numpy()[rows]
    preview = (127 * unit).round().astype(np.int8)
    if colors is None:
        return preview, None
    rgb = colors[rows]
    if rgb.dtype != np.uint8:
        rgb = (255 * rgb.clip(0, 1)).round().astype(np.uint8)
    return preview, rgb


class FeatureRow(NamedTuple):
    """One row of a table: a shape and its features."""

    path: str
    """Name of the shape, unique in the table."""
    label: str | None
    num_points: int
    """Number of points in the shape's file."""
    modified_ns: int | None
    """Modification time of the shape's file, None for shapes without a file."""
    preview: Int8[np.ndarray, "p 3"]
    """Some points, y up, scaled to a radius of 127."""
    colors: UInt8[np.ndarray, "p 3"] | None
    features: Mapping[str, Float[np.ndarray, " _"]]
    """The features of `FEATURE_COLUMNS` that the network provides, by name."""


def _build_arrow_table(rows: Sequence[FeatureRow], feature_names: Sequence[str]) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "path": pa.array([row.path for row in rows], pa.string()),
        "label": pa.array([row.label for row in rows], pa.string()),
        "points": pa.array([row.num_points for row in rows], pa.int64()),
        "modified_ns": pa.array([row.modified_ns for row in rows], pa.int64()),
        "preview": pa.array([row.preview.tobytes() for row in rows], pa.binary()),
        "preview_colors": pa.array(
            [None if row.colors is None else row.colors.tobytes() for row in rows], pa.binary()
        ),
    }
    for name in feature_names:
        stacked = np.stack([row.features[name] for row in rows]).astype(np.float32)
        values = pa.array(stacked.ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(values, stacked.shape[1])
    return pa.table(columns)


class ResumableParquetWriter:
    """Write a table of features in parts, and resume what a stopped or earlier run has written.

    `provenance` is what the features depend on; a table of another provenance raises
    ValueError. `checkpoint_info` is stored beside it: the checkpoint and how it was loaded. Shapes
    already in `out` count as done unless their files have changed since.
    """

    def __init__(
        self, out: Path, provenance: Mapping[str, Any], checkpoint_info: Mapping[str, Any]
    ) -> None:
        if out.suffix.lower() != ".parquet":
            raise ValueError(f"out={out}: features are written to a .parquet file: choose one")
        self.parquet, self.out = import_parquet(), out
        self.provenance, self.checkpoint_info = dict(provenance), dict(checkpoint_info)
        self.folder = out.with_name(f"{out.name}.parts")
        for unfinished in [
            *self.folder.glob("*.part"),
            *out.parent.glob(f"{glob.escape(out.name)}.*.part"),
        ]:
            unfinished.unlink()
        self.parts = sorted(self.folder.glob("*.parquet"))
        self.skipped: dict[str, str] = {}
        self._done: dict[str, int | None] = {}
        for path in [*([out] if out.exists() else []), *self.parts]:
            self._resume_from(path)

    def _resume_from(self, path: Path) -> None:
        """Register the shapes of an existing table as done; raise ValueError if it differs."""
        provenance = read_table_metadata(path)["about"]
        for key, value in self.provenance.items():
            if provenance.get(key) != value:
                raise ValueError(
                    f"{path}: was made with {key}={provenance.get(key)}, not with {key}={value}: "
                    "choose another file by out=<name>.parquet, or remove this one"
                )
        columns = read_columns(path, ["path", "modified_ns"]).to_pydict()
        self._done |= dict(zip(columns["path"], columns["modified_ns"], strict=True))

    def is_done(self, path: str, modified_ns: int | None) -> bool:
        """Return whether a shape is done and unchanged; unreadable ones are tried again."""
        return path in self._done and self._done[path] == modified_ns

    def write_part(self, rows: Sequence[FeatureRow], skipped: Mapping[str, str]) -> None:
        """Write a part atomically: rows of features, and the reasons of skipped shapes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self.parts):06d}.parquet"
        names = [name for name in FEATURE_COLUMNS if rows and name in rows[0].features]
        table = _build_arrow_table(rows, names)
        table = table.replace_schema_metadata(self._build_metadata(skipped))
        self._write_atomic(path, lambda part: self.parquet.write_table(table, part))
        self.parts.append(path)
        self.skipped |= skipped
        self._done |= {row.path: row.modified_ns for row in rows}

    def finish(self, modified_times: Mapping[str, int | None]) -> int:
        """Join all parts to the file `out`, remove the parts, and return the number of rows.

        `modified_times` maps each shape to the modification time of its file. Rows of other shapes
        and times are left out. Raises ValueError if no row remains.
        """
        num_rows = 0

        def write(part: Path) -> None:
            nonlocal num_rows
            writer = None
            for table in self._iterate_current_rows(modified_times):
                schema = table.schema.with_metadata(self._build_metadata(self.skipped))
                writer = writer or self.parquet.ParquetWriter(part, schema)
                writer.write_table(table.cast(schema))
                num_rows += len(table)
            if writer is None:
                reason = next(iter(self.skipped.values()), "there are no shapes")
                raise ValueError(f"none of the shapes can be read: {reason}")
            writer.close()

        self._write_atomic(self.out, write)
        shutil.rmtree(self.folder, ignore_errors=True)
        return num_rows

    def _iterate_current_rows(self, modified_times: Mapping[str, int | None]) -> Iterator[Any]:
        """Yield the wanted rows, each once, in tables of at least `ROWS_PER_WRITE` rows."""
        import pyarrow as pa

        yielded_paths: set[str] = set()
        buffer: list[Any] = []
        sources = [*([self.out] if self.out.exists() else []), *self.parts]
        for path in sources:
            for batch in self.parquet.ParquetFile(path).iter_batches(ROWS_PER_WRITE):
                columns = batch.select(["path", "modified_ns"]).to_pydict()
                is_new = [
                    name in modified_times
                    and modified_times[name] == time
                    and name not in yielded_paths
                    for name, time in zip(*columns.values(), strict=True)
                ]
                rows = pa.Table.from_batches([batch.filter(pa.array(is_new, pa.bool_()))])
                yielded_paths.update(rows["path"].to_pylist())
                buffer += [rows.replace_schema_metadata()] if len(rows) else []
            if sum(map(len, buffer)) >= ROWS_PER_WRITE:
                yield pa.concat_tables(buffer).combine_chunks()
                buffer = []
        if buffer:
            yield pa.concat_tables(buffer).combine_chunks()

    def _build_metadata(self, skipped: Mapping[str, str]) -> dict[bytes, bytes]:
        metadata = {
            "about": self.provenance, "source": self.checkpoint_info, "skipped": dict(skipped),
        }  # fmt: skip
        return {METADATA_KEY: json.dumps(metadata).encode()}

    @staticmethod
    def _write_atomic(path: Path, write: Any) -> None:
        with atomic_path(path, "with out=, and run the same command") as part:
            write(part)
