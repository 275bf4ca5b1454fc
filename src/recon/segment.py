"""Label points: python -m recon.segment checkpoint=<run>/checkpoints/best.ckpt files=<scan.ply>.

Writes each file's points, all of them and in their order, as a .ply with labels and colours, and
the probabilities of all classes as .npz.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import configure_malloc, resolve_device, silence_known_warnings

MAX_SCENE_METERS = 1000.0
"""Metres that a scene may be wide."""

if TYPE_CHECKING:
    from torch import Tensor

    from recon.data.batch import Clouds
    from recon.data.dataset import Cloud
    from recon.models.segmenter import Segmenter


def segment(cfg: DictConfig) -> list[Path]:
    """Segment files as a configuration says; return the .ply files that were written."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    import numpy as np
    import torch
    from rich.console import Console
    from rich.progress import track

    from recon.checkpoints.loading import load, read_task
    from recon.data.io.labeled_ply import write_labeled_ply
    from recon.data.io.shape import read_shape
    from recon.reports.colors import color_by_class

    silence_known_warnings()
    configure_malloc()
    files = plan_outputs(cfg.files, cfg.out)
    task: Any = read_task(cfg.checkpoint)
    if not task.endswith("segment"):
        raise ValueError(f"{cfg.checkpoint}: was trained for task={task!r}, not to segment points")
    model: Segmenter = load(cfg.checkpoint, task=task, **cfg.network)
    model.to(resolve_device(cfg.device))
    label = _object(model, cfg.object)
    console, written, counts = Console(), [], Counter[str]()
    for path, place in track(files.items(), "segmenting", console=console, disable=len(files) < 2):
        cloud = read_shape(path, cfg.num_surface_points)
        scores = _scores(model, cloud, label, cfg, str(path))
        predicted = scores.argmax(1).numpy()
        names = model.class_names or [str(row) for row in range(model.num_classes)]
        target = Path(cfg.out) / place
        if target.resolve() == path.resolve():
            raise ValueError(f"{path}: would be written over: choose another folder, out=<folder>")
        write_labeled_ply(target, path, cloud, predicted, color_by_class(predicted), names)
        if cfg.probabilities:
            share = scores.softmax(1).numpy().astype(np.float16)
            np.savez_compressed(target.with_suffix(".npz"), probabilities=share, names=names)
        for row, number in zip(*torch.unique(scores.argmax(1), return_counts=True), strict=True):
            counts[names[int(row)]] += int(number)
        written.append(target)
    total = sum(counts.values())
    for name, number in counts.most_common():
        part = f"{100 * number / total:5.1f} % of {total:,} points"
        console.print(f"{name:20} {part}", markup=False)
    console.print(f"written to {cfg.out}", soft_wrap=True, highlight=False)
    return written


def plan_outputs(patterns: str | Sequence[str], out: str | Path) -> dict[Path, Path]:
    """Return files, and what to write below the output for each, from names, patterns and folders.

    What lies in `out` was written by an earlier run, and is left out. Raises FileNotFoundError
    where nothing is found, and ValueError where two files would be written to one place.
    """
    from recon.data.io.shape import find_shape_files

    found: dict[Path, Path] = {}
    written = Path(out).resolve()
    for name in [patterns] if isinstance(patterns, str) else patterns:
        inside = find_shape_files(name)
        if Path(name).expanduser().is_dir():
            inside = {f: p for f, p in inside.items() if written not in f.resolve().parents}
        if not inside:
            raise FileNotFoundError(f"{name}: holds nothing but what was written to {out}")
        found |= {file: place.with_suffix(".ply") for file, place in inside.items()}
    places = Counter(found.values())
    if twice := [file for file, place in found.items() if places[place] > 1]:
        raise ValueError(
            f"{twice[0]} and {twice[1]} would both become {found[twice[0]]}: segment them apart"
        )
    return found


def _object(model: "Segmenter", asked: str | int | None) -> int | None:
    """Return the number of the objects' class; raise ValueError where it is missing or unknown."""
    if model.num_objects is None:
        if asked is not None:
            raise ValueError(f"object={asked!r}: the network segments scenes, not objects")
        return None
    known = model.object_names or [str(row) for row in range(model.num_objects)]
    if asked is None:
        raise ValueError(
            f"the network asks what the objects are: object=<one of {', '.join(known)}>"
        )
    if str(asked) in known:
        return list(known).index(str(asked))
    if str(asked).isdigit() and int(asked) < model.num_objects:
        return int(asked)
    raise ValueError(f"object={asked!r} is none of {', '.join(known)}")


def _scores(
    model: "Segmenter", cloud: "Cloud", label: int | None, cfg: DictConfig, source: str
) -> "Tensor":
    """Return the log-probabilities of a cloud's points, those of other objects' parts at -inf."""
    import torch

    from recon.data.batch import concat_channels
    from recon.data.transforms import UnitSphere
    from recon.tasks.sliding_windows import SlidingWindowConfig, segment_room

    how = SlidingWindowConfig(**cfg.windows)
    clouds = _prepared(model, cloud, cfg, source)

    def ask(some: "Clouds") -> "Tensor":
        if label is None:
            return model(concat_channels(some))
        known = torch.full((len(some.points),), label, device=some.points.device)
        return model(concat_channels(UnitSphere()(some)), known)

    if label is not None:  # one window holds the object
        clouds = UnitSphere()(clouds)
        how = how._replace(width=4.0, stride=4.0)
    scores = segment_room(ask, clouds, model.num_classes, how, how.votes, cfg.seed).log_probs
    if label is not None and model.parts:
        own = torch.zeros(model.num_classes, dtype=torch.bool)
        own[model.parts[model.object_names[label]]] = True
        scores = scores.masked_fill(~own, -torch.inf)
    return scores


def _prepared(model: "Segmenter", cloud: "Cloud", cfg: DictConfig, source: str) -> "Clouds":
    """Put a file's points as training did: its axis upwards, with what channels it reads."""
    import numpy as np
    import torch

    from recon.data.batch import Clouds
    from recon.data.datasets.rooms import compute_room_location
    from recon.data.transforms import AlignUpAxis

    scale = cfg.scale if model.num_objects is None else 1.0
    extent = float(np.ptp(cloud.points, axis=0).max()) * scale
    if model.num_objects is None and extent > MAX_SCENE_METERS:
        raise ValueError(
            f"{source}: is {extent:,.0f} m wide: set scale=0.001 if it is in millimetres, or take "
            "stray points out"
        )
    upright = AlignUpAxis(cfg.up or model.up, model.up)(torch.from_numpy(cloud.points)[None])
    points = upright[0].numpy() * np.float32(scale)
    carried = {}
    if model.channels >= 6:
        if cloud.colors is None:
            raise ValueError(f"{source}: has no colours, which the network reads")
        bytes_ = cloud.colors.dtype == np.uint8
        colors = np.asarray(cloud.colors, dtype=np.float32)
        carried["colors"] = colors / 255 if bytes_ else colors
    if model.channels >= 9:
        carried["location"] = compute_room_location(points, (points.min(0), points.max(0)))
    device = next(model.parameters()).device
    on_it = {name: torch.from_numpy(x)[None].to(device) for name, x in carried.items()}
    return Clouds(torch.from_numpy(points)[None].to(device), **on_it)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="segment")
def main(cfg: DictConfig) -> None:
    """Segment as the command line says; wrong input ends in one line."""
    with one_line_errors():
        segment(cfg)


if __name__ == "__main__":
    check_renamed_options("segment", sys.argv[1:])
    main()
