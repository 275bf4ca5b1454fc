"""Draw the figures of a finished run: python -m recon.figures run=<folder> out=figures."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.cli.run_summary import print_config


def draw_figures(cfg: DictConfig) -> list[Path]:
    """Draw the report data of a run as PNG files; return their paths."""
    # Imported here, because it takes seconds: --help and a misspelled option should not wait.
    from recon.data.io.file_checks import wrap_read_errors
    from recon.reports.paper_figures import write_figures
    from recon.reports.report_data import REPORT_DATA_FILE, REPORT_DATA_KIND, read_report_data
    from recon.utils.progress import track

    if not isinstance(cfg.dpi, int) or not 20 <= cfg.dpi <= 1200:
        raise ValueError(f"dpi must be an integer from 20 to 1200, got {cfg.dpi!r}")
    run = Path(cfg.run).expanduser()
    report_data = read_report_data(run)
    print_config(cfg)
    with wrap_read_errors(run / REPORT_DATA_FILE, REPORT_DATA_KIND):
        paths = write_figures(
            report_data,
            Path(cfg.out).expanduser(),
            dpi=cfg.dpi,
            track=lambda names: track(names, "drawing", "figures"),
        )
    if not paths:
        raise ValueError(f"{cfg.run}: {REPORT_DATA_FILE} of this run contains nothing to draw")
    print(f"written to {cfg.out}: {', '.join(path.name for path in paths)}")
    return paths


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="figures")
def main(cfg: DictConfig) -> None:
    """Draw figures from command-line options; input errors are printed in one line."""
    with one_line_errors():
        draw_figures(cfg)


if __name__ == "__main__":
    run_program("figures", main)
