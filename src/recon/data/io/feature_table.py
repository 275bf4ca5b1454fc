"""Features of shapes in one .parquet file that grows part by part and is never half written.

While it grows, its parts lie in `<out>.parts`; each is written in one step, and they become
the file when all shapes are done. What made the features stands in its metadata under `recon`.
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

from recon.data.io.file_checks import check_file, wrap_read_errors
from recon.data.io.parquet import import_parquet, read_columns
from recon.data.transforms import UnitSphere
from recon.utils.atomic_write import atomic_path
from recon.utils.printable import check_printable

METADATA_FIELDS = ("about", "source", "skipped")
METADATA_KEY = b"recon"
ROWS_PER_WRITE = 4096
"""Rows that are written to the finished file at a time."""
FEATURE_COLUMNS = ("pooled", "cls", "image", "text", "image_projected", "text_projected")
NUM_PREVIEW_POINTS = 1024
"""Points kept of each shape, to draw it."""


def build_preview(
    points: Float[Tensor, "n 3"], colors: Num[np.ndarray, "n 3"] | None, name: str
) -> tuple[Int8[np.ndarray, "p 3"], UInt8[np.ndarray, "p 3"] | None]:
    """Draw some of a shape's points, the same for the same name, and pack them with their colours.

    127 is the radius of the shape about its middle.
    """
    some: Any = slice(None)
    if len(points) > NUM_PREVIEW_POINTS:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        some = rng.choice(len(points), NUM_PREVIEW_POINTS, replace=False, shuffle=False)
    unit = UnitSphere()(points[None].float())[0].numpy()[some]
    packed = (127 * unit).round().astype(np.int8)
    if colors is None:
        return packed, None
    taken = colors[some]
    if taken.dtype != np.uint8:
        taken = (255 * taken.clip(0, 1)).round().astype(np.uint8)
    return packed, taken


class FeatureRow(NamedTuple):
    """One shape, and what a network says of it."""

    path: str
    """Its name, unique in a table."""
    label: str | None
    num_points: int
    """How many the file gives."""
    modified_ns: int | None
    """When its file last changed, None where it has none of its own."""
    preview: Int8[np.ndarray, "p 3"]
    """Some of its points, upright, 127 being the radius."""
    colors: UInt8[np.ndarray, "p 3"] | None
    features: Mapping[str, Float[np.ndarray, " _"]]
    """Those of `FEATURES` that the network has."""


def _table(rows: Sequence[FeatureRow], names: Sequence[str]) -> Any:
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
    for name in names:
        stacked = np.stack([row.features[name] for row in rows]).astype(np.float32)
        flat = pa.array(stacked.ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, stacked.shape[1])
    return pa.table(columns)


class ResumableParquetWriter:
    """A table of features that a stopped run goes on with.

    `about` says what makes the features; a table of others is refused with ValueError. `source`
    is told beside: where the weights lay, and how they were read. What `out` holds already counts
    as done, unless the shape's file has changed since.
    """

    def __init__(
        self, out: Path, provenance: Mapping[str, Any], checkpoint_info: Mapping[str, Any]
    ) -> None:
        if out.suffix.lower() != ".parquet":
            raise ValueError(f"out={out}: features are written to a .parquet file: name one")
        self.parquet, self.out = import_parquet(), out
        self.about, self.source = dict(provenance), dict(checkpoint_info)
        self.folder = out.with_name(f"{out.name}.parts")
        for left in [
            *self.folder.glob("*.part"),
            *out.parent.glob(f"{glob.escape(out.name)}.*.part"),
        ]:
            left.unlink()
        self.parts = sorted(self.folder.glob("*.parquet"))
        self.skipped: dict[str, str] = {}
        self._done: dict[str, int | None] = {}
        for path in [*([out] if out.exists() else []), *self.parts]:
            self._take(path)

    def _take(self, path: Path) -> None:
        told = read_table_metadata(path)
        held = told["about"]
        for key, asked in self.about.items():
            if held.get(key) != asked:
                raise ValueError(
                    f"{path}: was made with {key}={held.get(key)}, asked for is {key}={asked}: "
                    "choose another file with out=<name>.parquet, or remove this one"
                )
        if path != self.out:  # what a finished run could not read is tried again
            self.skipped |= told["skipped"]
        some = read_columns(path, ["path", "modified_ns"]).to_pydict()
        self._done |= dict(zip(some["path"], some["modified_ns"], strict=True))

    def is_done(self, path: str, modified_ns: int | None) -> bool:
        """Tell whether a shape is done: as it is now, or found unreadable by the stopped run."""
        return path in self.skipped or (path in self._done and self._done[path] == modified_ns)

    def write_part(self, rows: Sequence[FeatureRow], skipped: Mapping[str, str]) -> None:
        """Write a part in one step: the shapes that were read, and why others were not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self.parts):06d}.parquet"
        names = [name for name in FEATURE_COLUMNS if rows and name in rows[0].features]
        table = _table(rows, names)
        with_about = table.replace_schema_metadata(self._metadata(skipped))
        self._write(path, lambda part: self.parquet.write_table(with_about, part))
        self.parts.append(path)
        self.skipped |= skipped
        self._done |= {row.path: row.modified_ns for row in rows}

    def finish(self, wanted: Mapping[str, int | None]) -> int:
        """Join all parts into the file, without shapes that are gone or old; return how many.

        `wanted` gives the time of each shape's file. Raises ValueError where there is no shape.
        """
        written = 0

        def write(part: Path) -> None:
            nonlocal written
            writer = None
            for table in self._joined(wanted):
                schema = table.schema.with_metadata(self._metadata(self.skipped))
                writer = writer or self.parquet.ParquetWriter(part, schema)
                writer.write_table(table.cast(schema))
                written += len(table)
            if writer is None:
                why = next(iter(self.skipped.values()), "there are none")
                raise ValueError(f"none of the shapes can be read: {why}")
            writer.close()

        self._write(self.out, write)
        shutil.rmtree(self.folder, ignore_errors=True)
        return written

    def _joined(self, wanted: Mapping[str, int | None]) -> Iterator[Any]:
        """Yield the wanted rows, each once, thousands at a time."""
        import pyarrow as pa

        seen: set[str] = set()
        waiting: list[Any] = []
        sources = [*([self.out] if self.out.exists() else []), *self.parts]
        for path in sources:
            for batch in self.parquet.ParquetFile(path).iter_batches(ROWS_PER_WRITE):
                known = batch.select(["path", "modified_ns"]).to_pydict()
                new = [
                    name in wanted and wanted[name] == time and name not in seen
                    for name, time in zip(*known.values(), strict=True)
                ]
                rows = pa.Table.from_batches([batch.filter(pa.array(new, pa.bool_()))])
                seen.update(rows["path"].to_pylist())
                waiting += [rows.replace_schema_metadata()] if len(rows) else []
            if sum(map(len, waiting)) >= ROWS_PER_WRITE:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting).combine_chunks()

    def _metadata(self, skipped: Mapping[str, str]) -> dict[bytes, bytes]:
        told = {"about": self.about, "source": self.source, "skipped": dict(skipped)}
        return {METADATA_KEY: json.dumps(told).encode()}

    @staticmethod
    def _write(path: Path, write: Any) -> None:
        with atomic_path(path, "with out=, and run the same command") as part:
            write(part)


def read_table_metadata(path: Path) -> dict[str, Any]:
    """Return what made a table, and what it lacks; raise ValueError for a file that is no table."""
    parquet = import_parquet()
    with wrap_read_errors(check_file(path), "Parquet table"):
        schema = parquet.read_schema(path)
        held = schema.metadata or {}
    if METADATA_KEY not in held:
        raise ValueError(f"{path}: holds no features: make such a file with python -m recon.embed")
    with wrap_read_errors(path, "table of features"):
        rows = parquet.read_metadata(path).num_rows
        if rows > path.stat().st_size:  # each has a name of its own
            raise ValueError(f"it announces {rows} rows")
        told = json.loads(held[METADATA_KEY])
        if not isinstance(told, dict) or not all(
            isinstance(told.get(key), dict) for key in METADATA_FIELDS
        ):
            raise ValueError(f"it does not tell {', '.join(METADATA_FIELDS)}")
        return told | {"columns": [name for name in schema.names if name in FEATURE_COLUMNS]}


class FeatureTable(NamedTuple):
    """A finished table, in memory but for what was not asked for."""

    paths: list[str]
    labels: list[str | None]
    columns: dict[str, Float[np.ndarray, "n _"]]
    path: Path

    def read_previews(
        self, rows: Sequence[int]
    ) -> list[tuple[Float[np.ndarray, "p 3"], UInt8[np.ndarray, "p 3"] | None]]:
        """Read the points, in the unit sphere, and the colours to draw some shapes by."""
        names = ["preview", "preview_colors"]
        found = []
        with wrap_read_errors(self.path, "table of features"):
            held = read_columns(self.path, names).take(list(rows)).to_pydict()
            for points, colors in zip(*(held[name] for name in names), strict=True):
                cloud = np.frombuffer(points, np.int8).reshape(-1, 3).astype(np.float32) / 127
                painted = None if colors is None else np.frombuffer(colors, np.uint8).reshape(-1, 3)
                found.append((cloud, painted))
        return found


def read_feature_table(path: Path, columns: Sequence[str]) -> FeatureTable:
    """Read some features of all shapes; raise ValueError for a column that the table lacks."""
    there = read_table_metadata(path)["columns"]
    if lacking := [name for name in columns if name not in there]:
        raise ValueError(f"{path}: has no {lacking[0]}, but {', '.join(there)}")
    found = {}
    with wrap_read_errors(path, "table of features"):
        table = read_columns(path, ["path", "label", *columns])
        for name in columns:
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if flat.dtype.kind != "f" or not np.isfinite(flat).all():
                raise ValueError(f"its {name} are no finite numbers")
            found[name] = flat.reshape(len(table), -1).copy()  # torch wants to be able to write
        names, labels = table["path"].to_pylist(), table["label"].to_pylist()
        if not all(isinstance(name, str) for name in (*names, *filter(None, labels))):
            raise ValueError("its paths and labels are no text")
        check_printable((*names, *filter(None, labels)), path)
    return FeatureTable(names, labels, found, path)
