"""Write features of shapes to a table: python -m recon.embed checkpoint=<last.ckpt> files=<folder>.

A stopped run resumes by the same command. Unreadable files are printed, counted and skipped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import exit_on_interrupt
from recon.cli.program import run_program
from recon.cli.run_summary import describe_network, print_config, print_summary
from recon.cli.runtime import configure_malloc, silence_known_warnings
from recon.utils.atomic_write import write_lock
from recon.utils.device import resolve_device
from recon.utils.printable import format_count

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

    from recon.data.dataset import Cloud, PointCloudDataset
    from recon.data.io.feature_writer import FeatureRow, ResumableParquetWriter
    from recon.point_encoder import PointEncoder

MAX_SHOWN_ERRORS = 20
"""Maximum number of unreadable files that are printed."""


def embed(cfg: DictConfig) -> int:
    """Write the features of all configured shapes; return the number of shapes in the table.

    Raises ValueError for invalid options, if another process writes the same file, or if no shape
    can be read.
    """
    out = Path(cfg.out).expanduser()
    lock = out.parent / f".{out.name}.lock"
    with write_lock(out, "wait for it, or choose another file by out=<name>.parquet", lock):
        return _embed_locked(cfg)


def _embed_locked(cfg: DictConfig) -> int:
    # Imported here since it takes seconds: --help and errors in options appear at once.
    from rich.console import Console
    from rich.markup import escape

    from recon.data.file_notes import print_notes
    from recon.point_encoder import PointEncoder
    from recon.utils.progress import track

    silence_known_warnings()
    configure_malloc()
    _check_options(cfg)
    device = resolve_device(cfg.device)
    encoder = PointEncoder(cfg.checkpoint, num_points=cfg.num_points, device=device, **cfg.network)
    dataset = _open_dataset(cfg)
    table = _open_table(cfg, encoder, dataset)
    modified_times = {
        dataset.ids[row]: _get_modified_ns(dataset, row) for row in range(len(dataset))
    }
    rows_to_do = [
        row for row, name in enumerate(dataset.ids) if not table.is_done(name, modified_times[name])
    ]
    console = Console()
    _print_summary(cfg, encoder, len(dataset))
    if len(rows_to_do) < len(modified_times):
        num_done = len(modified_times) - len(rows_to_do)
        console.print(f"{num_done:,} of {format_count(len(modified_times), 'shape')} already done")
    batches = [
        rows_to_do[start : start + cfg.batch_size]
        for start in range(0, len(rows_to_do), cfg.batch_size)
    ]
    loader = _build_loader(dataset, batches, cfg.num_workers)
    progress = track(loader, "embedding", "batches", console=console) if rows_to_do else loader
    num_printed, notes = 0, list[tuple[str, str]]()
    for rows, clouds in zip(batches, progress, strict=True):
        feature_rows, skipped = _embed_batch(encoder, dataset, rows, clouds)
        table.write_part(feature_rows, skipped)
        for reason in [*skipped.values()][: max(0, MAX_SHOWN_ERRORS - num_printed)]:
            console.print(f"[bold]skipped[/bold] {escape(reason)}", soft_wrap=True, highlight=False)
        num_printed += len(skipped)
        for row, cloud in zip(rows, clouds, strict=True):
            notes += [(dataset.ids[row], note) for note in getattr(cloud, "notes", ())]
    print_notes(console, notes)
    count, num_skipped = table.finish(modified_times), len(table.skipped)
    message = f"{format_count(count, 'shape')} written to {cfg.out}"
    if num_skipped:
        message += f"; {num_skipped:,} of {len(modified_times):,} cannot be read and were skipped"
    console.print(message, soft_wrap=True, highlight=False)
    return count


def _build_loader(
    dataset: "PointCloudDataset", batches: list[list[int]], num_workers: int
) -> "DataLoader[Any]":
    """Return a loader of lists of clouds, one list for each batch of rows."""
    from torch.utils.data import DataLoader

    from recon.data.datasets.file_list import RawCloudDataset
    from recon.data.workers import end_with_parent

    return DataLoader(
        RawCloudDataset(dataset),
        batch_sampler=batches,
        collate_fn=list,
        num_workers=num_workers,
        worker_init_fn=end_with_parent,
    )


def _open_table(
    cfg: DictConfig, encoder: "PointEncoder", dataset: "PointCloudDataset"
) -> "ResumableParquetWriter":
    """Open the table, which continues what an earlier run with this checkpoint wrote."""
    from recon.data.datasets.shape_reader import ShapeReader
    from recon.data.io.feature_writer import ResumableParquetWriter

    reading = ShapeReader.from_options(cfg).settings()
    if cfg.get("data") is not None:
        reading = {"num_surface_points": cfg.num_surface_points, "up": dataset.up}
    local_path = Path(cfg.checkpoint).expanduser()
    is_local = local_path.exists()  # otherwise it is a repository of the Hub
    return ResumableParquetWriter(
        Path(cfg.out).expanduser(),
        build_feature_metadata(cfg, encoder, reading),
        {
            "checkpoint": str(local_path.absolute()) if is_local else cfg.checkpoint,
            "network": dict(cfg.network),
        },
    )


def _print_summary(cfg: DictConfig, encoder: "PointEncoder", num_shapes: int) -> None:
    """Print what is embedded, by which network, and into which file."""
    source = cfg.files if cfg.get("data") is None else f"split {cfg.data.split} of the data set"
    rows = {
        "shapes": f"{num_shapes:,} of {source}",
        "checkpoint": str(cfg.checkpoint),
        "network": describe_network(encoder.network),
        "device": f"{encoder.device}, {format_count(cfg.num_points, 'point')} per shape",
        "output": str(cfg.out),
    }
    print_summary("embed", rows)
    print_config(cfg)


def build_feature_metadata(
    cfg: DictConfig, encoder: "PointEncoder", reading: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that features depend on; all features of a table share it.

    `reading` are the options that the clouds depend on.
    """
    from importlib.metadata import version

    from recon.checkpoints.reader import hash_weights

    grouper = encoder.network.grouper
    return {
        "weights": hash_weights(encoder.network.state_dict()),
        "version": version("recon-pointcloud"),
        "num_points": cfg.num_points,
        "patches": [grouper.groups, grouper.group_size, grouper.skip_near_origin],
        **reading,
    }


def _check_options(cfg: DictConfig) -> None:
    """Raise ValueError for invalid options."""
    for name, minimum in (
        ("num_points", 1),
        ("num_surface_points", 1),
        ("batch_size", 1),
        ("num_workers", 0),
    ):
        if not isinstance(cfg[name], int) or cfg[name] < minimum:
            raise ValueError(f"{name} must be an integer of at least {minimum}, got {cfg[name]!r}")
    if (cfg.files is None) == (cfg.get("data") is None):
        raise ValueError("choose shapes either by files=<folder> or by data=<name of a data set>")


def _open_dataset(cfg: DictConfig) -> "PointCloudDataset":
    """Open the files, or the split `data.split` of a configured data set."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from recon.data.datasets.file_list import open_shape_files
    from recon.data.datasets.shape_reader import ShapeReader

    if cfg.get("data") is not None:
        data = instantiate(cfg.data, _convert_="all")
        return data.open_split(data.split)
    files: Any = OmegaConf.to_container(cfg.files) if OmegaConf.is_list(cfg.files) else cfg.files
    return open_shape_files(files, **ShapeReader.from_options(cfg)._asdict())


def _get_modified_ns(dataset: "PointCloudDataset", row: int) -> int | None:
    """Return the modification time of a shape's file; None for shapes without one."""
    times = [path.stat().st_mtime_ns for path in dataset.file_paths(row)[:1] if path.is_file()]
    return max(times, default=None)


def _embed_batch(
    encoder: "PointEncoder",
    dataset: "PointCloudDataset",
    rows: Sequence[int],
    clouds: Sequence[Any],
) -> "tuple[list[FeatureRow], dict[str, str]]":
    """Encode a batch of clouds; return rows of features, and the reasons of skipped shapes."""
    from recon.data.batch import UnreadableSample

    names = [dataset.ids[row] for row in rows]
    skipped = {
        n: c.reason for n, c in zip(names, clouds, strict=True) if isinstance(c, UnreadableSample)
    }
    readable = [
        (row, cloud)
        for row, cloud in zip(rows, clouds, strict=True)
        if not isinstance(cloud, UnreadableSample)
    ]
    upright = [_align_up_axis(dataset, cloud) for _, cloud in readable]
    try:
        features = [*_encode_clouds(encoder, upright)]
    except ValueError:  # at least one cloud cannot be encoded: encode each alone
        features = []
        for index, (row, _) in reversed([*enumerate(readable)]):
            try:
                features = [*_encode_clouds(encoder, [upright[index]]), *features]
            except ValueError as error:
                name = dataset.ids[row]
                skipped[name] = f"{name}: {getattr(error, 'reason', error)}"
                del readable[index], upright[index]
    feature_rows = [
        _build_row(dataset, row, cloud, points, cloud_features)
        for (row, cloud), points, cloud_features in zip(readable, upright, features, strict=True)
    ]
    return feature_rows, skipped


def _encode_clouds(encoder: "PointEncoder", clouds: "Sequence[Tensor]") -> "list[dict[str, Any]]":
    """Encode upright clouds; return the features of each, by name."""
    from recon.data.io.feature_table import FEATURE_COLUMNS

    if not clouds:
        return []
    features = encoder.encode(list(clouds), up="y")._asdict()
    columns = {
        name: features[name].cpu().numpy() for name in FEATURE_COLUMNS if features[name] is not None
    }
    return [
        {name: column[index] for name, column in columns.items()} for index in range(len(clouds))
    ]


def _align_up_axis(dataset: "PointCloudDataset", cloud: "Cloud") -> "Tensor":
    """Return a cloud's points with y as the up axis, as in training, (N, 3)."""
    import torch

    from recon.data.transforms import AlignUpAxis

    align = AlignUpAxis(dataset.up, "y", mirror=dataset.mirrored)
    return align(torch.from_numpy(cloud.points)[None])[0]


def _build_row(
    dataset: "PointCloudDataset",
    row: int,
    cloud: "Cloud",
    points: "Tensor",
    features: dict[str, Any],
) -> "FeatureRow":
    """Return a row of the table, with a preview of the shape."""
    from recon.data.io.feature_writer import FeatureRow, build_preview

    name, label = dataset.ids[row], int(dataset.labels[row]) if len(dataset.labels) else -1
    preview, colors = build_preview(points, cloud.colors, name)
    return FeatureRow(
        path=name,
        label=dataset.classes[label] if label >= 0 else None,
        num_points=len(cloud.points),
        modified_ns=_get_modified_ns(dataset, row),
        preview=preview,
        colors=colors,
        features=features,
    )


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="embed")
def main(cfg: DictConfig) -> None:
    """Embed shapes by command line options; errors are printed in one line."""
    with exit_on_interrupt("stopped: finished batches are kept, the same command resumes"):
        embed(cfg)


if __name__ == "__main__":
    run_program("embed", main)
