"""Check a data set, and write it once in a layout that is safe and fast to read.

python -m recon.prepare data=shapenet data.root=<ShapeNet55-34>
python -m recon.train experiment=pretrain_shapenet data.root=<ShapeNet55-34>-prepared
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import exit_on_interrupt
from recon.cli.renamed_options import check_renamed_options
from recon.utils.atomic_write import write_atomic, write_lock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from recon.data.datamodule import PointCloudDataModule
    from recon.data.dataset import PointCloudDataset
    from recon.data.prepared.check_report import CheckReport

MAX_SHOWN_MESSAGES = 20


def _show(findings: "CheckReport", report: Path | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    heads = ("split", "clouds", "read", "points", "largest coordinate", "carried", "pictures")
    table = Table(*heads, box=SIMPLE_HEAD)
    for name, found in findings.splits.items():
        points, reach = found["points"], found["largest_coordinate"]
        table.add_row(
            name,
            f"{found['clouds']:,}",
            f"{found['read']:,}",
            f"{points[0]:,}" if points[0] == points[1] else f"{points[0]:,} to {points[1]:,}",
            f"{reach[0]:.3g} to {reach[1]:.3g}",
            ", ".join(found["carried"]) or "-",
            f"{found['pictures']:,}",
        )
    console.print(table)
    for title, lines in (("error", findings.errors), ("remark", list(findings.warnings))):
        for line in lines[:MAX_SHOWN_MESSAGES]:
            console.print(f"[bold]{title}[/bold] {escape(line)}", soft_wrap=True, highlight=False)
        if len(lines) > MAX_SHOWN_MESSAGES:
            there = f", all in {report}" if report else ""
            console.print(
                f"... {len(lines) - MAX_SHOWN_MESSAGES:,} {title}s more{there}", soft_wrap=True
            )


def _open(
    data: "PointCloudDataModule", asked: Sequence[str] | None
) -> "dict[str, PointCloudDataset]":
    """Open the parts asked for, or all that are there; raise FileNotFoundError where none is."""
    found, missing, known = {}, [], data.stored_parts()
    asked = [asked] if isinstance(asked, str) else asked
    if unknown := set(asked or ()) - set(known):
        raise ValueError(f"splits={sorted(unknown)}: there are {', '.join(known)}")
    for part in asked or known:
        try:
            found[part] = data.open_part(part)
        except FileNotFoundError as error:
            if asked:
                raise
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def _output(cfg: DictConfig, data: "PointCloudDataModule", settings: dict[str, Any]) -> Path | None:
    """Return the folder to write, None to check only; raise ValueError for an unfit one."""
    from recon.data.io.arrays import read_json
    from recon.data.prepared.dataset import MANIFEST_NAME, is_prepared

    if cfg.check_only or is_prepared(data.root):
        return None
    if cfg.data.get("root") is None and cfg.out is None:
        raise ValueError("these data have no folder of their own: choose one with out=<folder>")
    out = Path(cfg.out or f"{data.root}-prepared").expanduser()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file: choose a folder with out=<folder>")
    if data.root.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{out}: holds the originals: choose another folder with out=<folder>")
    if (mark := out / MANIFEST_NAME).is_file():
        held = {key: value for key, value in read_json(mark).items() if key != "splits"}
        if held != settings:
            raise ValueError(f"{out}: holds {held}: choose another folder with out=<folder>")
    return out


def _check(cfg: DictConfig) -> None:
    """Raise ValueError for options that are none."""
    if cfg.on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be raise or skip, got {cfg.on_error!r}")
    if not isinstance(cfg.num_workers, int) or cfg.num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, got {cfg.num_workers!r}")
    for name in ("images", "check_only"):
        if not isinstance(cfg[name], bool):
            raise ValueError(f"{name} must be true or false, got {cfg[name]!r}")


def _advance(progress: "Progress", task: "TaskID", count: int) -> None:
    progress.advance(task, count)
    progress.refresh()


def _do_parts(
    parts: "dict[str, PointCloudDataset]",
    cfg: DictConfig,
    out: Path | None,
    settings: dict[str, Any],
    published: Mapping[str, int],
) -> "CheckReport":
    """Check all parts and, where `out` is a folder, write those that are whole."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from recon.data.prepared.check_report import CheckReport
    from recon.data.prepared.dataset import PreparedDataset
    from recon.data.prepared.shard import PrepareJob
    from recon.data.prepared.writer import prepare_split, write_index

    findings, key = CheckReport(), json.dumps(settings, sort_keys=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # No refreshing by a thread: workers are forked meanwhile.
    with Progress(*columns, auto_refresh=False) as progress:
        for part, dataset in parts.items():
            task = progress.add_task(part, total=len(dataset))
            recipe = PrepareJob(dataset, out and out / part, cfg.images, key)
            shards = prepare_split(recipe, cfg.num_workers, partial(_advance, progress, task))
            findings.add_split(part, dataset, shards, published.get(part))
            if isinstance(dataset, PreparedDataset):
                findings.errors += dataset.find_damaged_files()
            if not any(shard.rows for shard in shards):
                raise ValueError(
                    f"{part}: none of {len(dataset)} clouds can be read: {findings.errors[-1]}"
                )
            whole = not any(shard.errors for shard in shards)
            if out is not None and (whole or cfg.on_error == "skip"):
                write_index(recipe, shards, settings)
    return findings


def prepare(cfg: DictConfig) -> "CheckReport":
    """Check the configured data set and, unless `check_only`, write it in the prepared layout.

    Raises FileNotFoundError where the data set is not there, ValueError for unfit options.
    """
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate

    _check(cfg)
    data: PointCloudDataModule = instantiate(cfg.data, _convert_="all")
    settings = {"data": type(data).__name__, **data.settings()}
    out, parts = _output(cfg, data, settings), _open(data, cfg.splits)
    if out is None:
        findings = _do_parts(parts, cfg, out, settings, data.published_sizes)
        _show(findings, None)
        return findings
    with write_lock(out, "wait for it, or choose another folder with out=<folder>"):
        return _write(cfg, data, settings, out, parts)


def _write(
    cfg: DictConfig,
    data: "PointCloudDataModule",
    settings: dict[str, Any],
    out: Path,
    parts: "dict[str, PointCloudDataset]",
) -> "CheckReport":
    """Check all parts and write them; the folder's mark comes last."""
    from recon.data.prepared.dataset import INDEX_NAME, MANIFEST_NAME

    # Until all is whole again, nothing here can be trained on.
    for path in (out / MANIFEST_NAME, *(out / part / INDEX_NAME for part in parts)):
        path.unlink(missing_ok=True)
    findings = _do_parts(parts, cfg, out, settings, data.published_sizes)
    report = out / "report.json"
    write_atomic(report, json.dumps(findings.to_dict(), indent=1).encode())
    _show(findings, report)
    if not findings.errors or cfg.on_error == "skip":
        done = [part for part in data.stored_parts() if (out / part / INDEX_NAME).is_file()]
        write_atomic(out / MANIFEST_NAME, json.dumps({**settings, "splits": done}).encode())
        print(f"written to {out}: read it with data.root={out}")
    return findings


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="prepare")
def main(cfg: DictConfig) -> None:
    """Check and prepare as the command line says; wrong input ends in one line."""
    with exit_on_interrupt("stopped: finished files are kept, the same command goes on"):
        findings = prepare(cfg)
    if findings.errors and cfg.on_error == "raise":
        sys.exit(
            f"error: {len(findings.errors)} entries cannot be read, see above: mend them and run "
            "the same command, or leave them out with on_error=skip"
        )


if __name__ == "__main__":
    check_renamed_options("prepare", sys.argv[1:])
    main()
