"""Every run writes metrics.csv, and loses no earlier one."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from recon.callbacks.loggers import add_csv_logger, build_csv_logger


def test_earlier_metrics_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "metrics_2.csv").write_text("first")
    for text in ("second", "third"):
        (tmp_path / "metrics.csv").write_text(text)
        build_csv_logger(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "metrics_2.csv": "first", "metrics_3.csv": "second", "metrics_4.csv": "third",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "one", "list", "names", "csv"])
def test_there_is_exactly_one_csv_logger(kind: str, tmp_path: Path) -> None:
    other = TensorBoardLogger.__new__(TensorBoardLogger)
    csv = CSVLogger(tmp_path)
    chosen: dict[str, Any] = {
        "none": None, "one": other, "list": [other], "names": {"board": other}, "csv": csv,
    }  # fmt: skip
    loggers = add_csv_logger(chosen[kind], tmp_path)
    assert sum(isinstance(logger, CSVLogger) for logger in loggers) == 1
    assert (loggers[0] is other) == (kind in ("one", "list", "names"))
    assert (loggers[0] is csv) == (kind == "csv")
