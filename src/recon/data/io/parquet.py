"""Read columns of Parquet files, within limits on the memory that they take."""

import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from recon.data.io.file_checks import (
    MAX_UNPACK_RATIO,
    MIN_UNPACK_LIMIT,
    UnsupportedContentError,
    check_file,
    wrap_read_errors,
)


def import_parquet() -> Any:
    """Import `pyarrow.parquet`; raise ValueError that says how to install it."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            ".parquet files need pyarrow: pip install 'recon-pointcloud[parquet]'"
        ) from error
    return parquet


FOOTER_PROBE = """
import sys, pyarrow.parquet as parquet
metadata = parquet.read_metadata(sys.argv[1])
for group in range(metadata.num_row_groups):
    for column in range(metadata.num_columns):
        metadata.row_group(group).column(column)
"""
"""Program that reads all of a table's metadata; bad metadata can crash it."""


def check_footer(path: Path) -> None:
    """Raise ValueError for a table whose metadata would end this program.

    pyarrow aborts the process on some of them, so another process reads the metadata first.
    """
    status = check_file(path).stat()
    if code := _run_footer_probe(str(path.absolute()), status.st_mtime_ns, status.st_size):
        raise ValueError(
            f"{path}: not a readable Parquet table (its reader crashed with signal {-code}): the "
            "file may be damaged or incomplete, copy it again"
        )


@lru_cache(maxsize=64)
def _run_footer_probe(path: str, modified_ns: int, size: int) -> int:
    """Return the negative number of the signal that ended the probe, 0 for none."""
    command = [sys.executable, "-c", FOOTER_PROBE, path]
    return min(0, subprocess.run(command, capture_output=True, timeout=60).returncode)


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Read columns of a table that do not unpack to too many bytes for the size of the file.

    Text columns are read dictionary-encoded first, so that a long value repeated a million times
    is noticed before it is expanded. Raises ValueError that names the file.
    """
    import pyarrow as pa

    parquet = import_parquet()
    max_bytes = max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * check_file(path).stat().st_size)
    check_footer(path)
    with wrap_read_errors(path, "Parquet table"):
        metadata, schema = parquet.read_metadata(path), parquet.read_schema(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        columns = [group.column(n) for group in groups for n in range(metadata.num_columns)]
        num_values = sum(c.num_values for c in columns if c.path_in_schema.split(".")[0] in names)
        if 4 * num_values > max_bytes:
            raise ValueError(f"it declares {num_values:,} values, too many for its size")
        texts = [name for name in names if _is_text(schema.field(name).type)]
        for name in {*names} - {*texts}:
            _check_number_type(name, schema.field(name).type)
        table = parquet.read_table(path, columns=[*names], read_dictionary=texts)
        text_bytes = sum(_count_text_bytes(part) for name in texts for part in table[name].chunks)
        if text_bytes > max_bytes:
            raise ValueError(f"its texts unpack to {text_bytes:,} bytes, too many for its size")
        fields = [field.with_type(_decoded_type(field.type)) for field in table.schema]
        return table.cast(pa.schema(fields))


def _is_text(data_type: Any) -> bool:
    from pyarrow import types

    decoded = _decoded_type(data_type)
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary,
              types.is_large_binary, types.is_binary_view)  # fmt: skip
    return any(check(decoded) for check in checks)


def _check_number_type(name: str, data_type: Any) -> None:
    """Raise ValueError for a column of neither numbers nor lists of numbers."""
    from pyarrow import types

    value_type = data_type
    is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    while any(check(value_type) for check in is_list):
        value_type = value_type.value_type
    if not types.is_primitive(value_type) and not types.is_null(value_type):
        raise UnsupportedContentError(
            f"its column {name} has the type {data_type}: store texts, numbers or lists of numbers"
        )


def _decoded_type(data_type: Any) -> Any:
    """Return the value type of a dictionary-encoded column, or the type itself."""
    from pyarrow import types

    return data_type.value_type if types.is_dictionary(data_type) else data_type


def _count_text_bytes(column: Any) -> int:
    """Return the bytes of all texts of a column, with repetitions."""
    import pyarrow.compute as pc

    if not hasattr(column, "dictionary"):
        return int(column.nbytes)
    return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
