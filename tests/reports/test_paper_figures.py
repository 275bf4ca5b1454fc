from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from recon.cli.config_dir import conf_dir
from recon.figures import draw_figures
from recon.reports.report_data import ReportData, write_report_data


def test_figures_are_drawn_from_report_data(tmp_path: Path, report_data: ReportData) -> None:
    write_report_data(tmp_path, report_data)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("figures", [f"run={tmp_path}", f"out={tmp_path / 'out'}", "dpi=60"])
    names = ["curves", "rebuilt", "attention", "tsne", "confusion"]
    assert [path.name for path in draw_figures(cfg)] == [f"{name}.png" for name in names]
    for name in names:
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(pixels, axis=0)) > 5
    write_report_data(tmp_path, ReportData())
    with pytest.raises(ValueError, match="of this run contains nothing to draw"):
        draw_figures(cfg)
    (tmp_path / "report_data.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="report_data.npz: not a readable archive"):
        draw_figures(cfg)
    cfg.run = str(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="a run writes it next to report.html"):
        draw_figures(cfg)
