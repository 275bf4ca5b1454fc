"""Columns of Parquet files, read where they fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon.data.readers import PACKED, SMALL, check_file, naming


def pyarrow() -> Any:
    """Import pyarrow with its Parquet part; raise ValueError that says how to get it."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise ValueError(".parquet files need pyarrow: pip install 'recon3d[parquet]'") from error
    return parquet


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Read columns of a table, no more than what fits its file; raise ValueError that names it.

    A value that comes a million times is stored once, whatever its length.
    """
    import pyarrow as pa

    parquet, allowed = pyarrow(), max(SMALL, PACKED * check_file(path).stat().st_size)
    with naming(path, "Parquet table"):
        about, schema = parquet.read_metadata(path), parquet.read_schema(path)
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        columns = [group.column(n) for group in groups for n in range(about.num_columns)]
        values = sum(c.num_values for c in columns if c.path_in_schema.split(".")[0] in names)
        if 4 * values > allowed:
            raise ValueError(f"it announces {values:,} values")
        texts = [name for name in names if _is_text(schema.field(name).type)]
        table = parquet.read_table(path, columns=[*names], read_dictionary=texts)
        if sum(_length(chunk) for name in texts for chunk in table[name].chunks) > allowed:
            raise ValueError("its texts, each in full, are longer than a file of its size holds")
        return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return any(is_(kind) for is_ in (pa.types.is_string, pa.types.is_binary))


def _length(column: Any) -> int:
    """Return the bytes of all texts of a column, of which each is stored once."""
    import pyarrow.compute as pc

    if not hasattr(column, "dictionary"):
        return int(column.nbytes)
    return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
