"""Segment files: python -m recon.segment checkpoint=<run>/checkpoints/best.ckpt files=<scan.ply>.

Writes all points of each file, in their order, with labels and colors, and the class
probabilities as .npz.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.cli.run_summary import describe_network, print_config, print_summary
from recon.cli.runtime import configure_malloc, silence_known_warnings
from recon.utils.device import resolve_device
from recon.utils.printable import format_count

MAX_SCENE_METERS = 1000.0
"""Maximum extent of a scene in meters."""

if TYPE_CHECKING:
    from torch import Tensor

    from recon.data.batch import Clouds
    from recon.data.dataset import Cloud
    from recon.models.segmenter import Segmenter


def segment(cfg: DictConfig) -> list[Path]:
    """Segment files from a composed configuration; return the written files of points."""
    # Imported here, because they take seconds that --help and misspelled options should not cost.
    import torch
    from rich.console import Console

    from recon.checkpoints.loading import load, read_task
    from recon.data.datasets.shape_reader import ShapeReader
    from recon.data.file_notes import print_notes
    from recon.data.io.labeled_points import write_labeled_points
    from recon.data.io.shape import read_shape
    from recon.reports.colors import color_by_class
    from recon.utils.progress import track

    silence_known_warnings()
    configure_malloc()
    files, device = plan_outputs(cfg.files, cfg.out, cfg.format), resolve_device(cfg.device)
    task: Any = read_task(cfg.checkpoint)
    if not task.endswith("segment"):
        raise ValueError(f"{cfg.checkpoint}: was trained for task={task!r}, not for segmentation")
    model: Segmenter = load(cfg.checkpoint, task=task, **cfg.network)
    model.to(device)
    label = _parse_object_class(model, cfg.object)
    console, written, counts = Console(), [], Counter[str]()
    reader, notes = ShapeReader.from_options(cfg), list[tuple[str, str]]()
    _print_summary(cfg, model, len(files))
    for path, name in track(files.items(), "segmenting", "files", console=console):
        cloud = read_shape(path, cfg.num_surface_points, reader.options)
        declared = describe_declared(cloud, model.up, cfg.up, cfg.scale if label is None else 1.0)
        notes += [(str(path), note) for note in (*cloud.notes, *declared)]
        scores = _predict_scores(model, cloud, label, cfg, str(path))
        predicted = scores.argmax(1).numpy()
        names = model.class_names or [str(row) for row in range(model.num_classes)]
        target = Path(cfg.out) / name
        if target.resolve() == path.resolve():
            raise ValueError(f"{path}: would be overwritten: choose another folder, out=<folder>")
        changes = write_labeled_points(
            target, path, cloud, predicted, color_by_class(predicted), names, reader.options
        )
        notes += [(str(target), note) for note in changes]
        if cfg.probabilities:
            _write_probabilities(target, scores, names)
        for row, count in zip(*torch.unique(scores.argmax(1), return_counts=True), strict=True):
            counts[names[int(row)]] += int(count)
        written.append(target)
    print_notes(console, notes)
    total = sum(counts.values())
    for class_name, count in counts.most_common():
        share = f"{100 * count / total:5.1f} % of {total:,} points"
        console.print(f"{class_name:20} {share}", markup=False)
    console.print(f"written to {cfg.out}", soft_wrap=True, highlight=False)
    return written


def describe_declared(
    cloud: "Cloud", model_up: str, up: str | None, scale: float | None
) -> list[str]:
    """Return notes on the up axis and the unit that a file declares, where they are applied.

    `up` and `scale` are the options, which come first.
    """
    from recon.data.orientation import TURNED_NOTE

    notes = []
    if up in (None, "auto") and cloud.up not in (None, model_up):
        notes.append(TURNED_NOTE.format(cloud.up, model_up))
    if scale is None and cloud.unit_meters not in (None, 1.0):
        notes.append(f"its unit is {cloud.unit_meters:g} m, as it declares")
    return notes


def _write_probabilities(target: Path, scores: "Tensor", names: Sequence[str]) -> None:
    """Write class probabilities beside a file of points, under another name if that is a .npz."""
    import numpy as np

    path = target.with_suffix(".npz")
    if path == target:
        path = target.with_name(f"{target.stem}-probabilities.npz")
    probabilities = scores.softmax(1).numpy().astype(np.float16)
    np.savez_compressed(path, probabilities=probabilities, names=names)


def _print_summary(cfg: DictConfig, model: "Segmenter", num_files: int) -> None:
    """Print what is segmented, by which network, and into which folder."""
    kind = "scenes" if model.num_objects is None else f"parts of class {cfg.object}"
    rows = {
        "files": f"{num_files:,}, {kind}, {format_count(model.num_classes, 'point class')}",
        "checkpoint": str(cfg.checkpoint),
        "network": describe_network(model),
        "device": str(next(model.parameters()).device),
        "output": str(cfg.out),
    }
    print_summary("segment", rows)
    print_config(cfg)


def plan_outputs(
    patterns: str | Sequence[str], out: str | Path, file_format: str = "ply"
) -> dict[Path, Path]:
    """Map input files to output names below `out`, given files, patterns and folders.

    Files of folders that are in `out` are skipped, because an earlier run wrote them. Raises
    FileNotFoundError if nothing is found, ValueError for two files of one output or a wrong format.
    """
    from recon.data.io.points.writers.formats import WRITERS
    from recon.data.io.shape import find_shape_files

    if f".{file_format}" not in WRITERS:
        names = ", ".join(suffix[1:] for suffix in WRITERS)
        raise ValueError(f"format={file_format}: choose among {names}")
    outputs: dict[Path, Path] = {}
    out_dir = Path(out).resolve()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = find_shape_files(pattern)
        if Path(pattern).expanduser().is_dir():
            files = {f: name for f, name in files.items() if out_dir not in f.resolve().parents}
        if not files:
            raise FileNotFoundError(f"{pattern}: holds only files that were written to {out}")
        outputs |= {file: name.with_suffix(f".{file_format}") for file, name in files.items()}
    uses = Counter(outputs.values())
    if clashing := [file for file, name in outputs.items() if uses[name] > 1]:
        raise ValueError(
            f"{clashing[0]} and {clashing[1]} would both be written to {outputs[clashing[0]]}: "
            "segment them into different folders"
        )
    return outputs


def _parse_object_class(model: "Segmenter", object_class: str | int | None) -> int | None:
    """Return the number of an object class; raise ValueError if it is missing or unknown."""
    if model.num_objects is None:
        if object_class is not None:
            raise ValueError(f"object={object_class!r}: the network segments scenes, not objects")
        return None
    names = model.object_names or [str(row) for row in range(model.num_objects)]
    if object_class is None:
        raise ValueError(
            f"the network needs the class of the objects: set object=<one of {', '.join(names)}>"
        )
    if str(object_class) in names:
        return list(names).index(str(object_class))
    if str(object_class).isdigit() and int(object_class) < model.num_objects:
        return int(object_class)
    raise ValueError(f"object={object_class!r} is not one of {', '.join(names)}")


def _predict_scores(
    model: "Segmenter", cloud: "Cloud", label: int | None, cfg: DictConfig, source: str
) -> "Tensor":
    """Return log-probabilities of all points, -inf for classes that are not parts of the object."""
    import torch

    from recon.data.batch import Batch, concat_channels, replace_clouds
    from recon.data.transforms import UnitSphere
    from recon.data.whole_clouds import get_whole_clouds, transform_for_test
    from recon.tasks.sliding_windows import SlidingWindowConfig, segment_room, segment_shapes

    windows = SlidingWindowConfig(**cfg.windows)
    clouds = _prepare_cloud(model, cloud, cfg, source)

    def predict(batch: "Clouds", labels: "Tensor | None" = None) -> "Tensor":
        return model(concat_channels(batch), labels)

    if label is None:
        return segment_room(
            predict, clouds, model.num_classes, windows, windows.votes, cfg.seed
        ).log_probs
    item = Batch(sizes=torch.tensor([len(cloud.points)]), seed=torch.tensor([cfg.seed]))
    batch = replace_clouds(item, clouds)
    (whole,) = get_whole_clouds(
        transform_for_test(batch, UnitSphere(), windows.num_points, cfg.seed)
    )
    (scores,) = segment_shapes(
        predict,
        [whole.clouds],
        torch.tensor([label], device=clouds.points.device),
        seed=cfg.seed,
        num_points=windows.num_points,
        votes=windows.votes,
        batch_size=windows.batch_size,
    )
    scores = whole.spread(scores)
    if model.parts:
        is_part = torch.zeros(model.num_classes, dtype=torch.bool)
        is_part[model.parts[model.object_names[label]]] = True
        scores = scores.masked_fill(~is_part, -torch.inf)
    return scores


def _prepare_cloud(model: "Segmenter", cloud: "Cloud", cfg: DictConfig, source: str) -> "Clouds":
    """Transform a file's points as in training: up axis, scale, and the network's channels."""
    import numpy as np
    import torch

    from recon.data.batch import Clouds
    from recon.data.datasets.rooms import compute_room_location
    from recon.data.orientation import turn_cloud

    scale = 1.0
    if model.num_objects is None:
        scale = (cloud.unit_meters or 1.0) if cfg.scale is None else cfg.scale
    extent = float(np.ptp(cloud.points, axis=0).max()) * scale
    if model.num_objects is None and extent > MAX_SCENE_METERS:
        raise ValueError(
            f"{source}: is {extent:,.0f} m wide: set scale=0.001 if it is in millimeters, or "
            "remove stray points"
        )
    declared = cloud.up if cfg.up in (None, "auto") else cfg.up
    upright = turn_cloud(cloud, declared or model.up, model.up)
    points = upright.points * np.float32(scale)
    features = {}
    if model.channels >= 6:
        if cloud.colors is None:
            raise ValueError(f"{source}: has no colors, which the network needs")
        is_uint8 = cloud.colors.dtype == np.uint8
        colors = np.asarray(cloud.colors, dtype=np.float32)
        features["colors"] = colors / 255 if is_uint8 else colors
    if model.channels >= 9:
        features["location"] = compute_room_location(points, (points.min(0), points.max(0)))
    device = next(model.parameters()).device
    tensors = {name: torch.from_numpy(x)[None].to(device) for name, x in features.items()}
    return Clouds(torch.from_numpy(points)[None].to(device), **tensors)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="segment")
def main(cfg: DictConfig) -> None:
    """Segment from the command line; wrong input exits with a one-line message."""
    with one_line_errors():
        segment(cfg)


if __name__ == "__main__":
    run_program("segment", main)
