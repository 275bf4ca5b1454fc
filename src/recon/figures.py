"""Pictures of a finished run: python -m recon.figures run=<folder> out=figures."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from recon.cli.errors import conf_dir, one_line_errors


def figures(cfg: DictConfig) -> list[Path]:
    """Draw what a run left as PNG files; return them."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from recon.data.io.arrays import naming
    from recon.reports.paper_figures import print_exhibits
    from recon.reports.report_data import FILE, read_exhibits

    if not isinstance(cfg.dpi, int) or not 20 <= cfg.dpi <= 1200:
        raise ValueError(f"dpi must be a number from 20 to 1200, got {cfg.dpi!r}")
    run = Path(cfg.run).expanduser()
    shown = read_exhibits(run)
    with naming(run / FILE, "file of a run's pictures"):
        written = print_exhibits(shown, Path(cfg.out).expanduser(), dpi=cfg.dpi)
    if not written:
        raise ValueError(f"{cfg.run}: this run left nothing to draw")
    print(f"written to {cfg.out}: {', '.join(path.name for path in written)}")
    return written


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="figures")
def main(cfg: DictConfig) -> None:
    """Draw as the command line says; wrong input ends in one line."""
    with one_line_errors():
        figures(cfg)


if __name__ == "__main__":
    main()
