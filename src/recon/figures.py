"""Pictures of a finished run: python -m recon.figures run=<folder> out=figures."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors


def draw_figures(cfg: DictConfig) -> list[Path]:
    """Draw what a run left as PNG files; return them."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from recon.data.io.file_checks import wrap_read_errors
    from recon.reports.paper_figures import write_figures
    from recon.reports.report_data import REPORT_DATA_FILE, read_report_data

    if not isinstance(cfg.dpi, int) or not 20 <= cfg.dpi <= 1200:
        raise ValueError(f"dpi must be a number from 20 to 1200, got {cfg.dpi!r}")
    run = Path(cfg.run).expanduser()
    shown = read_report_data(run)
    with wrap_read_errors(run / REPORT_DATA_FILE, "file of a run's pictures"):
        written = write_figures(shown, Path(cfg.out).expanduser(), dpi=cfg.dpi)
    if not written:
        raise ValueError(f"{cfg.run}: this run left nothing to draw")
    print(f"written to {cfg.out}: {', '.join(path.name for path in written)}")
    return written


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="figures")
def main(cfg: DictConfig) -> None:
    """Draw as the command line says; wrong input ends in one line."""
    with one_line_errors():
        draw_figures(cfg)


if __name__ == "__main__":
    main()
