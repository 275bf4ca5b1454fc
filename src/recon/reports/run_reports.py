"""Pages about any data: what a network makes of shapes, how it learned, how it was tested."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from recon.callbacks.history import Curves, curves_of
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.reports.colors import flat
from recon.reports.html_page import Section, write_page
from recon.reports.html_sections import Bar, bars, by_class, looks, told
from recon.reports.introspection import (
    attend,
    clouds_of_rows,
    lay_out,
    neighbours,
    pooled_features,
    rebuild,
    spread,
)
from recon.reports.report_data import Attended, Confusion, Exhibits, Plane, write_exhibits
from recon.reports.wandb_media import show_rebuilt
from recon.tasks.metrics import Scores
from recon.tasks.pretrain import Pretraining

SHAPES = 400
"""Shapes that are looked at, evenly spaced among all."""
SHOWN, ATTENDED = 6, 3
FIGURES = "Accuracies in %, in brackets 95 % bootstrap intervals over the tested shapes."
GREY = (150, 160, 175)


class Look(NamedTuple):
    """What a network makes of some shapes of a data set."""

    names: list[str]
    """Of the few that are shown as clouds."""
    clouds: Float[Tensor, "n p 3"]
    attended: list[Attended]
    plane: Plane | None
    nearest: Section | None


def look(
    network: Any,
    data: PointCloudDataModule,
    dataset: PointCloudDataset,
    points: int,
    *,
    most: int = SHAPES,
) -> Look:
    """Encode some shapes of a data set; show a few, and how all of them lie."""
    count = min(most, len(dataset))
    asked = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    rows, clouds = clouds_of_rows(data, dataset, asked, points)
    labels = dataset.labels[rows] if len(dataset.labels) else np.full(len(rows), -1)
    names, features = [dataset.ids[row] for row in rows], pooled_features(network, clouds)
    shown = spread(labels, SHOWN)
    known = [dataset.classes[label] if label >= 0 else "" for label in labels]
    titles = [f"{names[i]} ({known[i]})" if known[i] else names[i] for i in shown]
    note = (
        f"A shape, then those most like it to the network, among {len(rows)} of these. "
        "Green: of the same class."
    )
    places = [rows[i] for i in shown]
    near = neighbours(features, shown, features, dataset, rows, note=note) if places else None
    few = clouds[shown]
    return Look(
        titles,
        few,
        attend(network, titles[:ATTENDED], few[:ATTENDED]),
        lay_out(features, labels, names, dataset.classes),
        near,
    )


class PretrainingPage(Callback):
    """After a pretraining, write report.html and the pictures it shows into `folder`.

    It shows shapes that were trained on, and does nothing after other trainings: their tests leave
    such a page. `points` are what the network sees of a shape; `started` is when the run began.
    """

    def __init__(self, folder: str | Path, *, points: int = 1024, started: str) -> None:
        self.folder, self.points = Path(folder), points
        self.started = datetime.fromisoformat(started)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Pretraining) or not isinstance(data, PointCloudDataModule):
            return
        met = int(trainer.num_training_batches) * data.batch_size  # not all of a dry run
        most = min(SHAPES, met)
        seen = look(pl_module.model, data, data.dataset, self.points, most=most)
        shown = Exhibits(
            curves_of(trainer),
            rebuild(pl_module, seen.names, seen.clouds, [_grey(x) for x in seen.clouds]),
            seen.attended,
            seen.plane,
        )
        write_exhibits(self.folder, shown)
        show_rebuilt(trainer, shown.rebuilt)
        seconds = (datetime.now() - self.started).total_seconds()
        config = self.folder / "config.yaml"
        write_page(
            self.folder / "report.html",
            "What this run learned",
            f"{trained(trainer, pl_module)} This run took {seconds:.0f} s.",
            [*looks(shown, of="Shapes it was trained on"), seen.nearest, *told(shown)],
            config.read_text() if config.is_file() else "",
        )
        print(f"{seconds:.0f} s; written to {self.folder}, pictures in report.html", flush=True)


def write_tested(
    folder: Path,
    title: str,
    lead: str,
    measures: Sequence[Bar],
    *,
    scores: Scores | None,
    classes: Sequence[str],
    seen: Look | None,
    curves: Curves,
    says: str,
) -> None:
    """Write the page of a tested network, and the pictures it shows, into a folder."""
    confusion = None if scores is None else Confusion(scores.confusion.numpy(), classes)
    shown = Exhibits(
        curves, (), seen.attended if seen else (), seen.plane if seen else None, confusion
    )
    write_exhibits(folder, shown)
    shares = {} if scores is None else dict(zip(classes, scores.per_class.tolist(), strict=True))
    config = folder / "config.yaml"
    write_page(
        folder / "report.html",
        title,
        lead,
        [
            bars("Figures", FIGURES, measures) if measures else None,
            by_class(shares, "Accuracy") if shares else None,
            *looks(shown, of="Tested shapes"),
            seen.nearest if seen else None,
            *told(shown, says=says),
        ],
        config.read_text() if config.is_file() else "",
    )


def trained(trainer: Trainer, task: Pretraining) -> str:
    """Say in a sentence what was trained, on what, and by whom."""
    data = getattr(trainer, "datamodule", None)
    count = f" on {len(data.dataset)} shapes" if isinstance(data, PointCloudDataModule) else ""
    ensemble = getattr(task, "ensemble", None)
    by = [f"{name} teacher" for name in ensemble.teachers] if ensemble else []
    by += ["contrast among clouds"] if ensemble and ensemble.self_contrast else []
    taught = f", with {' and '.join(by)}" if by else ", without teachers"
    caution = " Captions often hold the class word." if "text teacher" in by else ""
    what, epochs = type(task).__name__, trainer.current_epoch
    return f"{what}, trained{count} for {epochs} epochs{taught}.{caution}"


def _grey(points: Float[Tensor, "n 3"]) -> Cloud:
    return Cloud(points.numpy(), colors=flat(len(points), GREY))
