"""Features of shapes: python -m recon.embed checkpoint=<last.ckpt> files=<folder>.

A stopped run goes on where it was, by the same command. Files that cannot be read are named and
counted, and the rest goes on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import exit_on_interrupt
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import configure_malloc, resolve_device, silence_known_warnings
from recon.utils.atomic_write import write_lock

if TYPE_CHECKING:
    from torch import Tensor

    from recon.data.dataset import Cloud, PointCloudDataset
    from recon.data.io.feature_table import FeatureRow
    from recon.point_encoder import PointEncoder

MAX_SHOWN_ERRORS = 20
"""Unreadable files that are named on the screen."""


def embed(cfg: DictConfig) -> int:
    """Write the features of all shapes that a configuration names; return how many there are.

    Raises ValueError where another program writes the same file.
    """
    out = Path(cfg.out).expanduser()
    lock = out.parent / f".{out.name}.lock"
    with write_lock(out, "wait for it, or choose another file with out=<name>.parquet", lock):
        return _embed(cfg)


def _embed(cfg: DictConfig) -> int:
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track
    from torch.utils.data import DataLoader

    from recon.data.datasets.file_list import RawCloudDataset
    from recon.data.io.feature_table import ResumableParquetWriter
    from recon.data.workers import end_with_parent
    from recon.point_encoder import PointEncoder

    silence_known_warnings()
    configure_malloc()
    _check(cfg)
    device = resolve_device(cfg.device)
    encoder = PointEncoder(cfg.checkpoint, num_points=cfg.num_points, device=device, **cfg.network)
    dataset = _shapes(cfg)
    local = Path(cfg.checkpoint).expanduser()
    checkpoint = str(local.absolute()) if local.exists() else cfg.checkpoint  # else of the Hub
    source = {"checkpoint": checkpoint, "network": dict(cfg.network)}
    table = ResumableParquetWriter(
        Path(cfg.out).expanduser(), build_feature_metadata(cfg, encoder), source
    )
    wanted = {dataset.ids[row]: _modified_ns(dataset, row) for row in range(len(dataset))}
    todo = [row for row, name in enumerate(dataset.ids) if not table.is_done(name, wanted[name])]
    console = Console()
    if len(todo) < len(wanted):
        console.print(f"{len(wanted) - len(todo):,} of {len(wanted):,} shapes are done already")
    batches = [
        todo[start : start + cfg.batch_size] for start in range(0, len(todo), cfg.batch_size)
    ]
    loader = DataLoader(
        RawCloudDataset(dataset),
        batch_sampler=batches,
        collate_fn=list,
        num_workers=cfg.num_workers,
        worker_init_fn=end_with_parent,
    )
    told = 0
    for rows, clouds in zip(
        batches, track(loader, "embedding", console=console, disable=not todo), strict=True
    ):
        found, skipped = _embedded(encoder, dataset, rows, clouds)
        table.write_part(found, skipped)
        for why in [*skipped.values()][: max(0, MAX_SHOWN_ERRORS - told)]:
            console.print(f"[bold]skipped[/bold] {escape(why)}", soft_wrap=True, highlight=False)
        told += len(skipped)
    count, lacking = table.finish(wanted), len(table.skipped)
    more = f"; {lacking:,} of {len(wanted):,} cannot be read and are left out" if lacking else ""
    console.print(f"{count:,} shapes written to {cfg.out}{more}", soft_wrap=True, highlight=False)
    return count


def build_feature_metadata(cfg: DictConfig, encoder: "PointEncoder") -> dict[str, Any]:
    """Return what makes the features: two tables of different such are not to be mixed."""
    from importlib.metadata import version

    from recon.checkpoints.reader import hash_weights

    cut = encoder.network.grouper
    return {
        "weights": hash_weights(encoder.network.state_dict()),
        "version": version("recon-pointcloud"),
        "num_points": cfg.num_points,
        "patches": [cut.groups, cut.group_size, cut.skip_near_origin],
        "num_surface_points": cfg.num_surface_points,
    }


def _check(cfg: DictConfig) -> None:
    """Raise ValueError for options that are none."""
    for name, least in (
        ("num_points", 1),
        ("num_surface_points", 1),
        ("batch_size", 1),
        ("num_workers", 0),
    ):
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise ValueError(f"{name} must be a number from {least} on, got {cfg[name]!r}")
    if (cfg.files is None) == (cfg.get("data") is None):
        raise ValueError("name what to embed: files=<folder>, or a data set by data=<name>")


def _shapes(cfg: DictConfig) -> "PointCloudDataset":
    """Open the files, or the `split` of a configured data set."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from recon.data.datasets.file_list import open_shape_files

    if cfg.get("data") is not None:
        data = instantiate(cfg.data, _convert_="all")
        return data.open_split(data.split)
    asked: Any = OmegaConf.to_container(cfg.files) if OmegaConf.is_list(cfg.files) else cfg.files
    return open_shape_files(asked, num_surface_points=cfg.num_surface_points, up=cfg.up)


def _modified_ns(dataset: "PointCloudDataset", row: int) -> int | None:
    """Return when the files of a shape last changed; None where it has none that are there."""
    times = [path.stat().st_mtime_ns for path in dataset.file_paths(row)[:1] if path.is_file()]
    return max(times, default=None)


def _embedded(
    encoder: "PointEncoder",
    dataset: "PointCloudDataset",
    rows: Sequence[int],
    clouds: Sequence[Any],
) -> "tuple[list[FeatureRow], dict[str, str]]":
    """Encode the clouds of some rows; return what was found, and why others were not."""
    from recon.data.batch import UnreadableSample

    names = [dataset.ids[row] for row in rows]
    skipped = {
        n: c.reason for n, c in zip(names, clouds, strict=True) if isinstance(c, UnreadableSample)
    }
    read = [
        (row, cloud)
        for row, cloud in zip(rows, clouds, strict=True)
        if not isinstance(cloud, UnreadableSample)
    ]
    upright = [_upright(dataset, cloud) for _, cloud in read]
    try:
        features = [*_each(encoder, upright)]
    except ValueError:  # one of them does not do: ask about each alone
        features = []
        for place, (row, _) in reversed([*enumerate(read)]):
            try:
                features = [*_each(encoder, [upright[place]]), *features]
            except ValueError as error:
                name = dataset.ids[row]
                skipped[name] = f"{name}: {str(error).removeprefix('cloud 0: ')}"
                del read[place], upright[place]
    found = [
        _row(dataset, row, cloud, points, some)
        for (row, cloud), points, some in zip(read, upright, features, strict=True)
    ]
    return found, skipped


def _each(encoder: "PointEncoder", clouds: "Sequence[Tensor]") -> "list[dict[str, Any]]":
    """Encode upright clouds; return the features of each, by name."""
    from recon.data.io.feature_table import FEATURE_COLUMNS

    if not clouds:
        return []
    found = encoder.encode(list(clouds), up="y")._asdict()
    kept = {name: found[name].cpu().numpy() for name in FEATURE_COLUMNS if found[name] is not None}
    return [{name: of_all[place] for name, of_all in kept.items()} for place in range(len(clouds))]


def _upright(dataset: "PointCloudDataset", cloud: "Cloud") -> "Tensor":
    """Return a cloud's points with y upwards, as the network was trained."""
    import torch

    from recon.data.transforms import AlignUpAxis

    turn = AlignUpAxis(dataset.up, "y", mirror=dataset.mirrored)
    return turn(torch.from_numpy(cloud.points)[None])[0]


def _row(
    dataset: "PointCloudDataset",
    row: int,
    cloud: "Cloud",
    points: "Tensor",
    features: dict[str, Any],
) -> "FeatureRow":
    """Return a row of the table, with some of the points to draw the shape by."""
    from recon.data.io.feature_table import FeatureRow, build_preview

    name, label = dataset.ids[row], int(dataset.labels[row]) if len(dataset.labels) else -1
    preview, colors = build_preview(points, cloud.colors, name)
    return FeatureRow(
        path=name,
        label=dataset.classes[label] if label >= 0 else None,
        num_points=len(cloud.points),
        modified_ns=_modified_ns(dataset, row),
        preview=preview,
        colors=colors,
        features=features,
    )


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="embed")
def main(cfg: DictConfig) -> None:
    """Embed as the command line says; wrong input ends in one line."""
    with exit_on_interrupt("stopped: what is done is kept, the same command goes on"):
        embed(cfg)


if __name__ == "__main__":
    check_renamed_options("embed", sys.argv[1:])
    main()
