"""The plot of several runs."""

from pathlib import Path

import matplotlib as mpl
import pytest

from recon.reports.comparison import RunMetrics, plot_comparison, report_comparison

NUMERIC: RunMetrics = {"lr=0.1": {"accuracy": [70.0]}, "lr=0.2": {"accuracy": [80.0, 82.0]}}
NAMED: RunMetrics = {"model=$a$": {"accuracy": [70.0]}, "model=b": {"loss, as logged": [0.5]}}


@pytest.mark.parametrize("metrics", [NUMERIC, NAMED], ids=["line", "bars"])
def test_plots_leave_the_settings_of_matplotlib_as_they_were(
    metrics: RunMetrics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(mpl.rcParams)
    report_comparison(metrics, tmp_path)
    plot_comparison(metrics, tmp_path / "again.png")
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sweep.png").read_bytes()
    assert "81.0" in capsys.readouterr().out or metrics is NAMED
