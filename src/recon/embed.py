"""Features of shapes: python -m recon.embed checkpoint=<last.ckpt> files=<folder>.

A stopped run goes on where it was, by the same command. Files that cannot be read are named and
counted, and the rest goes on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.errors import conf_dir, device_of, keep_large_blocks, quiet, stops
from recon.utils.atomic_write import writing

if TYPE_CHECKING:
    from torch import Tensor

    from recon.data.dataset import Cloud, PointCloudDataset
    from recon.data.io.feature_table import Embedded
    from recon.point_encoder import PointEncoder

SHOWN = 20
"""Unreadable files that are named on the screen."""


def embed(cfg: DictConfig) -> int:
    """Write the features of all shapes that a configuration names; return how many there are.

    Raises ValueError where another program writes the same file.
    """
    out = Path(cfg.out).expanduser()
    lock = out.parent / f".{out.name}.lock"
    with writing(out, "wait for it, or choose another file with out=<name>.parquet", lock):
        return _embed(cfg)


def _embed(cfg: DictConfig) -> int:
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track
    from torch.utils.data import DataLoader

    from recon.data.datasets.file_list import WholeClouds
    from recon.data.io.feature_table import GrowingTable
    from recon.data.workers import end_with_parent
    from recon.point_encoder import PointEncoder

    quiet()
    keep_large_blocks()
    _check(cfg)
    device = device_of(cfg.device)
    encoder = PointEncoder(cfg.checkpoint, points=cfg.points, device=device, **cfg.network)
    dataset = _shapes(cfg)
    local = Path(cfg.checkpoint).expanduser()
    checkpoint = str(local.absolute()) if local.exists() else cfg.checkpoint  # else of the Hub
    source = {"checkpoint": checkpoint, "network": dict(cfg.network)}
    table = GrowingTable(Path(cfg.out).expanduser(), about_of(cfg, encoder), source)
    wanted = {dataset.ids[row]: _modified_ns(dataset, row) for row in range(len(dataset))}
    todo = [row for row, name in enumerate(dataset.ids) if not table.has(name, wanted[name])]
    console = Console()
    if len(todo) < len(wanted):
        console.print(f"{len(wanted) - len(todo):,} of {len(wanted):,} shapes are done already")
    batches = [
        todo[start : start + cfg.batch_size] for start in range(0, len(todo), cfg.batch_size)
    ]
    loader = DataLoader(
        WholeClouds(dataset),
        batch_sampler=batches,
        collate_fn=list,
        num_workers=cfg.workers,
        worker_init_fn=end_with_parent,
    )
    told = 0
    for rows, clouds in zip(
        batches, track(loader, "embedding", console=console, disable=not todo), strict=True
    ):
        found, skipped = _embedded(encoder, dataset, rows, clouds)
        table.add(found, skipped)
        for why in [*skipped.values()][: max(0, SHOWN - told)]:
            console.print(f"[bold]skipped[/bold] {escape(why)}", soft_wrap=True, highlight=False)
        told += len(skipped)
    count, lacking = table.finish(wanted), len(table.skipped)
    more = f"; {lacking:,} of {len(wanted):,} cannot be read and are left out" if lacking else ""
    console.print(f"{count:,} shapes written to {cfg.out}{more}", soft_wrap=True, highlight=False)
    return count


def about_of(cfg: DictConfig, encoder: "PointEncoder") -> dict[str, Any]:
    """Return what makes the features: two tables of different such are not to be mixed."""
    from importlib.metadata import version

    from recon.checkpoints.reader import weights_hash

    cut = encoder.network.grouper
    return {
        "weights": weights_hash(encoder.network.state_dict()),
        "version": version("recon3d"),
        "points": cfg.points,
        "patches": [cut.groups, cut.group_size, cut.skip_near_origin],
        "count": cfg.count,
    }


def _check(cfg: DictConfig) -> None:
    """Raise ValueError for options that are none."""
    for name, least in (("points", 1), ("count", 1), ("batch_size", 1), ("workers", 0)):
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise ValueError(f"{name} must be a number from {least} on, got {cfg[name]!r}")
    if (cfg.files is None) == (cfg.get("data") is None):
        raise ValueError("name what to embed: files=<folder>, or a data set by data=<name>")


def _shapes(cfg: DictConfig) -> "PointCloudDataset":
    """Open the files, or the `split` of a configured data set."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from recon.data.datasets.file_list import open_shapes

    if cfg.get("data") is not None:
        data = instantiate(cfg.data, _convert_="all")
        return data.open(data.split)
    asked: Any = OmegaConf.to_container(cfg.files) if OmegaConf.is_list(cfg.files) else cfg.files
    return open_shapes(asked, count=cfg.count, up=cfg.up)


def _modified_ns(dataset: "PointCloudDataset", row: int) -> int | None:
    """Return when the files of a shape last changed; None where it has none that are there."""
    times = [path.stat().st_mtime_ns for path in dataset.files(row)[:1] if path.is_file()]
    return max(times, default=None)


def _embedded(
    encoder: "PointEncoder",
    dataset: "PointCloudDataset",
    rows: Sequence[int],
    clouds: Sequence[Any],
) -> "tuple[list[Embedded], dict[str, str]]":
    """Encode the clouds of some rows; return what was found, and why others were not."""
    from recon.data.batch import Unreadable

    names = [dataset.ids[row] for row in rows]
    skipped = {n: c.why for n, c in zip(names, clouds, strict=True) if isinstance(c, Unreadable)}
    read = [
        (row, cloud)
        for row, cloud in zip(rows, clouds, strict=True)
        if not isinstance(cloud, Unreadable)
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
    from recon.data.io.feature_table import FEATURES

    if not clouds:
        return []
    found = encoder.encode(list(clouds), up="y")._asdict()
    kept = {name: found[name].cpu().numpy() for name in FEATURES if found[name] is not None}
    return [{name: of_all[place] for name, of_all in kept.items()} for place in range(len(clouds))]


def _upright(dataset: "PointCloudDataset", cloud: "Cloud") -> "Tensor":
    """Return a cloud's points with y upwards, as the network was trained."""
    import torch

    from recon.data.transforms import UpAxis

    turn = UpAxis(dataset.up, "y", mirror=dataset.mirrored)
    return turn(torch.from_numpy(cloud.points)[None])[0]


def _row(
    dataset: "PointCloudDataset",
    row: int,
    cloud: "Cloud",
    points: "Tensor",
    features: dict[str, Any],
) -> "Embedded":
    """Return a row of the table, with some of the points to draw the shape by."""
    from recon.data.io.feature_table import Embedded, preview_of

    name, label = dataset.ids[row], int(dataset.labels[row]) if len(dataset.labels) else -1
    preview, colors = preview_of(points, cloud.colors, name)
    return Embedded(
        path=name,
        label=dataset.classes[label] if label >= 0 else None,
        points=len(cloud.points),
        modified_ns=_modified_ns(dataset, row),
        preview=preview,
        colors=colors,
        features=features,
    )


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="embed")
def main(cfg: DictConfig) -> None:
    """Embed as the command line says; wrong input ends in one line."""
    with stops("stopped: what is done is kept, the same command goes on"):
        embed(cfg)


if __name__ == "__main__":
    main()
