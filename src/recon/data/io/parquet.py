"""Columns of Parquet files, read where they fit."""

import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from recon.data.io.file_checks import (
    COPY_AGAIN_HINT,
    MAX_UNPACK_RATIO,
    MIN_UNPACK_LIMIT,
    check_file,
    wrap_read_errors,
)


def import_parquet() -> Any:
    """Import pyarrow with its Parquet part; raise ValueError that says how to get it."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            ".parquet files need pyarrow: pip install 'recon-pointcloud[parquet]'"
        ) from error
    return parquet


FOOTER_PROBE = """
import sys, pyarrow.parquet as parquet
about = parquet.read_metadata(sys.argv[1])
for group in range(about.num_row_groups):
    for column in range(about.num_columns):
        about.row_group(group).column(column)
"""


def check_footer(path: Path) -> None:
    """Raise ValueError for a table whose description of its columns ends the program that reads it.

    pyarrow lets such an error through as no Python program can catch it: another one looks first.
    """
    about = check_file(path).stat()
    if code := _looked(str(path.absolute()), about.st_mtime_ns, about.st_size):
        raise ValueError(
            f"{path}: not a readable Parquet table (it ended its reader, code {code}): "
            f"{COPY_AGAIN_HINT}"
        )


@lru_cache(maxsize=64)
def _looked(path: str, modified_ns: int, size: int) -> int:
    """Return the code of the signal that ended a program which looked at a table, 0 for none."""
    command = [sys.executable, "-c", FOOTER_PROBE, path]
    return min(0, subprocess.run(command, capture_output=True, timeout=60).returncode)


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Read columns of a table, no more than what fits its file; raise ValueError that names it.

    A value that comes a million times is stored once, whatever its length.
    """
    import pyarrow as pa

    parquet, allowed = (
        import_parquet(),
        max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * check_file(path).stat().st_size),
    )
    check_footer(path)
    with wrap_read_errors(path, "Parquet table"):
        about, schema = parquet.read_metadata(path), parquet.read_schema(path)
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        columns = [group.column(n) for group in groups for n in range(about.num_columns)]
        values = sum(c.num_values for c in columns if c.path_in_schema.split(".")[0] in names)
        if 4 * values > allowed:
            raise ValueError(f"it announces {values:,} values")
        texts = [name for name in names if _is_text(schema.field(name).type)]
        for name in {*names} - {*texts}:
            _check_numbers(name, schema.field(name).type)
        table = parquet.read_table(path, columns=[*names], read_dictionary=texts)
        if sum(_length(chunk) for name in texts for chunk in table[name].chunks) > allowed:
            raise ValueError("its texts, each in full, are longer than a file of its size holds")
        whole = [field.with_type(_in_full(field.type)) for field in table.schema]
        return table.cast(pa.schema(whole))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    found = _in_full(kind)
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary,
             types.is_large_binary, types.is_binary_view)  # fmt: skip
    return any(is_(found) for is_ in kinds)


def _check_numbers(name: str, kind: Any) -> None:
    """Raise ValueError for a column that holds neither numbers nor lists of them."""
    from pyarrow import types

    part = kind
    while types.is_list(part) or types.is_large_list(part) or types.is_fixed_size_list(part):
        part = part.value_type
    if not types.is_primitive(part) and not types.is_null(part):
        raise ValueError(
            f"its column {name} holds {kind}, neither texts, numbers nor lists of them"
        )


def _in_full(kind: Any) -> Any:
    """Return the type of what a dictionary stands for."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _length(column: Any) -> int:
    """Return the bytes of all texts of a column, of which each is stored once."""
    import pyarrow.compute as pc

    if not hasattr(column, "dictionary"):
        return int(column.nbytes)
    return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
