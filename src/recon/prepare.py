"""Check a data set and write it in the prepared layout, which is safe and fast to read.

python -m recon.prepare data=shapenet data.root=<ShapeNet55-34>
python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>-prepared
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import exit_on_interrupt
from recon.cli.program import run_program
from recon.cli.run_summary import print_config, print_summary
from recon.utils.atomic_write import write_atomic, write_lock

if TYPE_CHECKING:
    from recon.data.datamodule import PointCloudDataModule
    from recon.data.dataset import PointCloudDataset
    from recon.data.prepared.check_report import CheckReport

MAX_SHOWN_MESSAGES = 20
"""Maximum number of errors, and of warnings, that are printed."""


def _print_report(report: "CheckReport", path: Path | None) -> None:
    """Print a table of the splits, errors and warnings; `path` is the file that has them all."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    headers = ("split", "clouds", "readable", "points", "max. coordinate", "fields", "images")
    table = Table(*headers, box=SIMPLE_HEAD)
    for name, split in report.splits.items():
        points, max_coords = split["points"], split["largest_coordinate"]
        table.add_row(
            name,
            f"{split['clouds']:,}",
            f"{split['read']:,}",
            f"{points[0]:,}" if points[0] == points[1] else f"{points[0]:,} to {points[1]:,}",
            f"{max_coords[0]:.3g} to {max_coords[1]:.3g}",
            ", ".join(split["carried"]) or "-",
            f"{split['pictures']:,}",
        )
    console.print(table)
    for title, messages in (("error", report.errors), ("warning", list(report.warnings))):
        for message in messages[:MAX_SHOWN_MESSAGES]:
            console.print(
                f"[bold]{title}[/bold] {escape(message)}", soft_wrap=True, highlight=False
            )
        if len(messages) > MAX_SHOWN_MESSAGES:
            location = f", see {path}" if path else ""
            console.print(
                f"... {len(messages) - MAX_SHOWN_MESSAGES:,} more {title}s{location}",
                soft_wrap=True,
            )


def _open_parts(
    data: "PointCloudDataModule", splits: str | Sequence[str] | None
) -> "dict[str, PointCloudDataset]":
    """Open the named splits, by default all on disk.

    Raises ValueError for an unknown name, FileNotFoundError if a named split or all are missing.
    """
    parts, missing, available = {}, [], data.stored_parts()
    names = [splits] if isinstance(splits, str) else splits
    if unknown := set(names or ()) - set(available):
        raise ValueError(f"splits={sorted(unknown)}: choose among {', '.join(available)}")
    for name in names or available:
        try:
            parts[name] = data.open_part(name)
        except FileNotFoundError as error:
            if names:
                raise
            missing.append(error)
    if not parts:
        raise missing[0]
    return parts


def _resolve_output(
    cfg: DictConfig, data: "PointCloudDataModule", settings: dict[str, Any]
) -> Path | None:
    """Return the folder to write, None to check only; raise ValueError for a folder in use."""
    from recon.data.io.arrays import read_json
    from recon.data.prepared.layout import MANIFEST_NAME, is_prepared

    if cfg.check_only or is_prepared(data.root):
        return None
    if cfg.data.get("root") is None and cfg.out is None:
        raise ValueError("this data set has no folder: choose where to write by out=<folder>")
    out = Path(cfg.out or f"{data.root}-prepared").expanduser()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file: choose a folder by out=<folder>")
    if data.root.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"{out}: contains the original files: choose another folder by out=<folder>"
        )
    if (manifest := out / MANIFEST_NAME).is_file():
        prepared = {key: value for key, value in read_json(manifest).items() if key != "splits"}
        if prepared != settings:
            raise ValueError(
                f"{out}: was prepared with {prepared}: choose another folder by out=<folder>"
            )
    return out


def _check_options(cfg: DictConfig) -> None:
    """Raise ValueError for invalid options."""
    if cfg.on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be raise or skip, got {cfg.on_error!r}")
    if not isinstance(cfg.num_workers, int) or cfg.num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, got {cfg.num_workers!r}")
    for name in ("images", "check_only"):
        if not isinstance(cfg[name], bool):
            raise ValueError(f"{name} must be true or false, got {cfg[name]!r}")


def _prepare_parts(
    parts: "dict[str, PointCloudDataset]",
    cfg: DictConfig,
    out: Path | None,
    settings: dict[str, Any],
    published_sizes: Mapping[str, int],
) -> "CheckReport":
    """Check all splits and, if `out` is a folder, write those without errors."""
    from recon.data.prepared.check_report import CheckReport
    from recon.data.prepared.dataset import PreparedDataset
    from recon.data.prepared.shard import PrepareJob
    from recon.data.prepared.writer import prepare_split, write_index
    from recon.utils.progress import ProgressCounter

    report, settings_key = CheckReport(), json.dumps(settings, sort_keys=True)
    verb = "checking" if out is None else "preparing"
    for part, dataset in parts.items():
        job = PrepareJob(dataset, out and out / part, cfg.images, settings_key)
        with ProgressCounter(f"{verb} split {part}", len(dataset), "clouds") as progress:
            shards = prepare_split(job, cfg.num_workers, progress.advance)
        report.add_split(part, dataset, shards, published_sizes.get(part))
        if isinstance(dataset, PreparedDataset):
            report.errors += dataset.find_damaged_files()
        if not any(shard.rows for shard in shards):
            raise ValueError(
                f"{part}: none of {len(dataset)} clouds can be read: {report.errors[-1]}"
            )
        has_errors = any(shard.errors for shard in shards)
        if out is not None and (not has_errors or cfg.on_error == "skip"):
            write_index(job, shards, settings)
    return report


def prepare(cfg: DictConfig) -> "CheckReport":
    """Check the configured data set and, unless `check_only`, write it in the prepared layout.

    Raises FileNotFoundError for a missing data set, ValueError for invalid options.
    """
    # Imported here since it takes seconds: --help and errors in options appear at once.
    from hydra.utils import instantiate

    _check_options(cfg)
    data: PointCloudDataModule = instantiate(cfg.data, _convert_="all")
    settings = {"data": type(data).__name__, **data.settings()}
    out, parts = _resolve_output(cfg, data, settings), _open_parts(data, cfg.splits)
    counts = ", ".join(f"{part} {len(dataset):,}" for part, dataset in parts.items())
    rows = {
        "data": f"{settings['data'].removesuffix('DataModule')} in {data.root}",
        "clouds": counts,
        "processes": str(cfg.num_workers),
        "output": "nothing is written" if out is None else str(out),
    }
    print_summary("prepare", rows)
    print_config(cfg)
    if out is None:
        report = _prepare_parts(parts, cfg, out, settings, data.published_sizes)
        _print_report(report, None)
        return report
    with write_lock(out, "wait for it, or choose another folder by out=<folder>"):
        return _check_and_write(cfg, data, settings, out, parts)


def _check_and_write(
    cfg: DictConfig,
    data: "PointCloudDataModule",
    settings: dict[str, Any],
    out: Path,
    parts: "dict[str, PointCloudDataset]",
) -> "CheckReport":
    """Check all splits and write them; the manifest is written last."""
    from recon.data.prepared.layout import INDEX_NAME, MANIFEST_NAME

    # Without these files the folder is incomplete, and cannot be used for training.
    for path in (out / MANIFEST_NAME, *(out / part / INDEX_NAME for part in parts)):
        path.unlink(missing_ok=True)
    report = _prepare_parts(parts, cfg, out, settings, data.published_sizes)
    report_path = out / "report.json"
    write_atomic(report_path, json.dumps(report.to_dict(), indent=1).encode())
    _print_report(report, report_path)
    if not report.errors or cfg.on_error == "skip":
        splits = [part for part in data.stored_parts() if (out / part / INDEX_NAME).is_file()]
        write_atomic(out / MANIFEST_NAME, json.dumps({**settings, "splits": splits}).encode())
        print(f"written to {out}: use it by data.root={out}")
    return report


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="prepare")
def main(cfg: DictConfig) -> None:
    """Prepare a data set by command line options; errors are printed in one line."""
    with exit_on_interrupt("stopped: finished shards are kept, the same command resumes"):
        report = prepare(cfg)
    if report.errors and cfg.on_error == "raise":
        sys.exit(
            f"error: {len(report.errors)} samples cannot be read, see above: correct them and run "
            "the same command, or skip them by on_error=skip"
        )


if __name__ == "__main__":
    run_program("prepare", main)
