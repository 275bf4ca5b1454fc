"""Tables of features: metadata and columns that do not fit are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from recon.data.io import parquet
from recon.data.io.feature_table import METADATA_KEY, read_feature_table

METADATA = {"about": {}, "source": {}, "skipped": {}}
COLUMNS: dict[str, Any] = {
    "path": ["a", "b", "c"],
    "label": ["chair", None, "chair"],
    "pooled": [[1.0, 2.0]] * 3,
    "preview": [bytes(6)] * 3,
    "preview_colors": [bytes(6), None, bytes(6)],
}


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no other interpreter with pyarrow for each table."""
    monkeypatch.setattr(parquet, "FOOTER_PROBE", "")


def write(file: Path, metadata: object = METADATA, /, **columns: Any) -> Path:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    table = pyarrow.table(COLUMNS | columns).replace_schema_metadata({METADATA_KEY: text.encode()})
    pyarrow.parquet.write_table(table, file)
    return file


def test_features_and_previews_come_back(tmp_path: Path) -> None:
    table = read_feature_table(write(tmp_path / "x.parquet"), ["pooled"])
    assert (table.paths, table.labels) == (["a", "b", "c"], ["chair", None, "chair"])
    assert np.array_equal(table.columns["pooled"], np.array([[1, 2]] * 3))
    (points, colors), (_, none) = table.read_previews([0, 1])
    assert points.shape == (2, 3)
    assert colors is not None
    assert colors.shape == (2, 3)
    assert none is None
    with pytest.raises(ValueError, match=r"x\.parquet: "):
        read_feature_table(tmp_path / "x.parquet", ["cls"])


@pytest.mark.parametrize("metadata", [[1], {"about": 3}, "{", ""])
def test_metadata_that_is_not_understood_is_refused(metadata: object, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", metadata)
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable"):
        read_feature_table(path, ["pooled"])


@pytest.mark.parametrize(
    "changed",
    [
        {"pooled": ["a", "b", "c"]},
        {"pooled": [[1.0], [1.0, 2.0], [3.0]]},
        {"pooled": [[1.0], None, [3.0]]},
        {"pooled": [[1.0], [float("nan")], [3.0]]},
        {"pooled": [[1], [2], [3]]},
        {"path": [1, 2, 3]},
        {"label": [1, 2, 3]},
        {"path": ["a", "b\n", "c"]},
    ],
    ids=str,
)
def test_columns_that_are_no_features_are_refused(changed: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", **changed)
    with pytest.raises(ValueError, match=r"x\.parquet: "):
        read_feature_table(path, ["pooled"])


def test_other_tables_and_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table(COLUMNS), path)
    with pytest.raises(ValueError, match=r"x\.parquet: contains no features"):
        read_feature_table(path, ["pooled"])
    many = {name: [values[0]] * 9000 for name, values in COLUMNS.items()}
    assert write(path, **many).stat().st_size < 9000
    with pytest.raises(ValueError, match=r"x\.parquet: .*9000 rows"):
        read_feature_table(path, ["pooled"])
