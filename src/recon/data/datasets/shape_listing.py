"""List shape files with labels, captions, images and splits, from a folder tree or a table."""

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon.data.io.file_checks import (
    UnsupportedContentError,
    check_file,
    resolve_inside,
    wrap_read_errors,
)
from recon.data.io.parquet import import_parquet, read_columns
from recon.data.io.points.text_head import is_point_text
from recon.data.io.shape import READERS, describe_other_files, is_shape_file, walk_folders

SPLITS = ("train", "val", "test")
TABLE_SUFFIXES = (".csv", ".parquet")
TABLE_COLUMNS = ("path", "label", "caption", "image", "split")


class ShapeEntry(NamedTuple):
    """One shape file and its annotations."""

    path: Path
    name: str
    label: str | None = None
    caption: str | None = None
    image: Path | None = None
    split: str | None = None


def list_shapes(root: Path) -> list[ShapeEntry]:
    """List the shapes of a folder or a table; a .csv file of points is one shape.

    Raises FileNotFoundError for a missing path, and ValueError for a folder without shapes or an
    invalid table.
    """
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        if not is_shape_table(root):
            return [ShapeEntry(root, root.name)]
        return [*_read_listed_shapes(root, root.parent)]
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: not found: data.root is a folder of shapes, or a .csv or .parquet table "
            "with the columns path, label, caption, image"
        )
    if not (entries := [*_walk_shapes(root)]):
        raise ValueError(
            f"{root}: contains no shapes; supported formats are {', '.join(sorted(READERS))}"
        )
    return entries


def is_shape_table(path: Path) -> bool:
    """Return whether a file is a table of shapes, not a .csv file of the points of one shape."""
    suffix = path.suffix.lower()
    return suffix in TABLE_SUFFIXES and not (suffix == ".csv" and is_point_text(path))


def _walk_shapes(root: Path) -> Iterator[ShapeEntry]:
    """Yield the shapes `<class>/<file>` of a folder, optionally below train, val and test."""
    paths = [folder / name for folder, names in walk_folders(root) for name in names]
    files = [(path, path.relative_to(root)) for path in paths if is_shape_file(path)]
    if files and (note := describe_other_files(paths)):
        warnings.warn(f"{root}: {note}", stacklevel=2)
    split_level = _find_split_level([relative.parts[:-1] for _, relative in files])
    for path, relative in files:
        folders = list(relative.parts[:-1])
        has_split = split_level is not None and len(folders) > split_level
        split = folders.pop(split_level) if split_level is not None and has_split else None
        yield ShapeEntry(path, relative.as_posix(), folders[0] if folders else None, split=split)


def _find_split_level(parents: Sequence[tuple[str, ...]]) -> int | None:
    """Return which of the first two folder levels consists of splits only, None if neither does.

    A class may be named `train` too: then its level has other names.
    """
    for level in (0, 1):
        names = {folders[level] for folders in parents if len(folders) > level}
        if names and names <= set(SPLITS) and all(len(folders) > level for folders in parents):
            return level
    return None


def _read_listed_shapes(table: Path, root: Path) -> Iterator[ShapeEntry]:
    """Yield the shapes of a table, with paths relative to `root`."""
    for number, row in enumerate(_read_table(table), start=2):
        cells = {key: value for key, value in row.items() if key and value == value}  # drops NaN
        texts = {key: str(value).strip() for key, value in cells.items() if value not in (None, "")}
        if "path" not in texts:
            raise ValueError(f"{table}: line {number} has no path: add it, or remove the line")
        source = f"{table}, line {number}"
        yield ShapeEntry(
            resolve_inside(root, texts["path"], source),
            Path(texts["path"]).as_posix(),
            texts.get("label"),
            texts.get("caption"),
            resolve_inside(root, texts["image"], source) if "image" in texts else None,
            _check_split(texts.get("split"), source),
        )


def _read_table(path: Path) -> list[dict[str, Any]]:
    """Read a table with the column path and the optional columns label, caption, image, split."""
    check_file(path)
    rows = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    if not rows:
        raise ValueError(f"{path}: lists no shapes: add a row for each shape")
    if "path" not in rows[0]:
        raise ValueError(
            f"{path}: has the columns {sorted(map(str, rows[0]))}, `path` is missing: add it, or "
            "name the columns in the first line"
        )
    return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with wrap_read_errors(path, "table"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        rows: list[dict[str, Any]] = [*reader]
        if len({*(names := reader.fieldnames or ())}) < len(names):
            raise UnsupportedContentError("two columns have the same name: rename one of them")
        if number := next((n for n, row in enumerate(rows, start=2) if None in row), None):
            raise UnsupportedContentError(
                f"line {number} has more cells than the header: quote cells that contain commas"
            )
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    parquet = import_parquet()
    with wrap_read_errors(path, "Parquet table"):
        if (count := parquet.read_metadata(path).num_rows) > path.stat().st_size:
            raise ValueError(f"its metadata declares {count} rows, more than fit into the file")
        columns = parquet.read_schema(path).names
    names = [name for name in TABLE_COLUMNS if name in columns]
    table = read_columns(path, names) if names else None
    with wrap_read_errors(path, "Parquet table"):
        return table.to_pylist() if table is not None else [dict.fromkeys(columns)]


def _check_split(name: str | None, source: str) -> str | None:
    if name not in (None, *SPLITS):
        raise ValueError(f"{source}: unknown split {name!r}: choose {', '.join(SPLITS)}")
    return name
