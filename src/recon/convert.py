"""Convert point clouds and meshes: python -m recon.convert in=<scan.e57> out=<scan.las>.

Points keep their coordinates, types and properties as far as the format allows; what changes is
printed. From meshes, points are sampled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.cli.run_summary import print_config, print_summary
from recon.utils.printable import format_count

if TYPE_CHECKING:
    from recon.data.datasets.shape_reader import ShapeReader

ON_ERROR = ("raise", "skip")
"""Choices of the option `on_error`."""


def convert(cfg: DictConfig) -> list[Path]:
    """Convert the configured files; return the written files.

    Raises ValueError for invalid options, for files that cannot be read, and for outputs that exist
    unless `overwrite=true`.
    """
    # Imported here, because they take seconds that --help and misspelled options should not cost.
    from rich.console import Console
    from rich.markup import escape

    from recon.data.datasets.shape_reader import ShapeReader
    from recon.data.file_notes import print_notes
    from recon.utils.progress import track

    if cfg.on_error not in ON_ERROR:
        raise ValueError(f"on_error={cfg.on_error}: choose among {', '.join(ON_ERROR)}")
    reader = ShapeReader.from_options(cfg)
    outputs = plan_conversions(cfg["in"], cfg.out, cfg.format)
    check_outputs(outputs, overwrite=cfg.overwrite)
    console, notes, written = Console(), list[tuple[str, str]](), list[Path]()
    print_summary("convert", {"files": f"{len(outputs):,} of {cfg['in']}", "output": str(cfg.out)})
    print_config(cfg)
    for source, target in track(outputs.items(), "converting", "files", console=console):
        try:
            notes += [(str(source), note) for note in convert_file(source, target, reader)]
            written.append(target)
        except ValueError as error:
            if cfg.on_error == "raise":
                raise
            console.print(f"[bold]skipped[/bold] {escape(str(error))}", soft_wrap=True)
    print_notes(console, notes)
    message = f"{format_count(len(written), 'file')} written to {cfg.out}"
    if len(written) < len(outputs):
        message += f"; {len(outputs) - len(written):,} cannot be read and were skipped"
    console.print(message, soft_wrap=True, highlight=False)
    if not written:
        raise ValueError(f"{cfg['in']}: no file could be converted")
    return written


def convert_file(source: Path, target: Path, reader: "ShapeReader") -> Sequence[str]:
    """Convert one file; return notes on what was omitted, assumed or changed."""
    from recon.data.io.points.writers.formats import write_points
    from recon.data.io.points.writers.full_tables import read_full_table

    table = read_full_table(source, reader.num_surface_points, reader.options)
    return (*table.notes, *write_points(target, table))


def plan_conversions(
    patterns: str | Sequence[str], out: str | Path, file_format: str | None
) -> dict[Path, Path]:
    """Map files to the files to write, given files, patterns and folders.

    `out` is a file if it has the extension of a format, and a folder otherwise; then the format is
    `file_format`. Files that are in this folder are not converted. Raises ValueError for an unknown
    format, and if two files would be written to the same.
    """
    from recon.data.io.points.writers.formats import WRITERS
    from recon.data.io.shape import find_shape_files

    names = [suffix.removeprefix(".") for suffix in WRITERS]
    if file_format is not None and file_format not in names:
        raise ValueError(f"format={file_format}: choose among {', '.join(names)}")
    folder, outputs = Path(out).expanduser(), dict[Path, Path]()
    is_file = folder.suffix.lower() in WRITERS and not folder.is_dir()
    if is_file and file_format not in (None, folder.suffix.lower()[1:]):
        raise ValueError(f"format={file_format}: out={out} has another extension: leave out format")
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = find_shape_files(pattern)
        if Path(pattern).expanduser().is_dir() and len(files) > 1:
            inside = folder.resolve()
            files = {f: name for f, name in files.items() if inside not in f.resolve().parents}
        suffix = f".{file_format or 'ply'}"
        outputs |= {f: folder if is_file else folder / name.with_suffix(suffix)
                    for f, name in files.items()}  # fmt: skip
    sources: dict[Path, Path] = {}
    for source, target in outputs.items():
        if (other := sources.setdefault(target, source)) != source:
            cure = "set out=<folder> and format=<name>" if is_file else "convert them separately"
            raise ValueError(f"{other} and {source} would both be written to {target}: {cure}")
    return outputs


def check_outputs(outputs: dict[Path, Path], *, overwrite: bool) -> None:
    """Raise ValueError if an output is one of the inputs, or exists and `overwrite` is not set."""
    sources = {source.resolve() for source in outputs}
    for target in outputs.values():
        if target.resolve() in sources:
            raise ValueError(f"{target}: would be overwritten: choose another out=<path>")
    existing = [target for target in outputs.values() if target.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1:,} others)" if len(existing) > 1 else ""
        raise ValueError(
            f"{existing[0]}: exists{more}: set overwrite=true, or choose another out=<path>"
        )


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="convert")
def main(cfg: DictConfig) -> None:
    """Convert from the command line; wrong input exits with a one-line message."""
    with one_line_errors():
        convert(cfg)


if __name__ == "__main__":
    run_program("convert", main)
