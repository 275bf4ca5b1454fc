"""What a run learned: a table, results.json, and one self-contained page of pictures."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sklearn.metrics import confusion_matrix
from torch import Tensor

from recon.callbacks.history import get_curves
from recon.data.datasets.furniture import Furniture
from recon.reports.html_page import Section, write_page
from recon.reports.html_sections import (
    Bar,
    build_bar,
    build_bar_table,
    build_curve_sections,
    build_introspection_sections,
)
from recon.reports.introspection import (
    attention_maps,
    build_neighbor_section,
    pick_example_rows,
    reconstruct_shapes,
    tsne,
)
from recon.reports.report_data import ConfusionMatrix, ReportData, write_report_data
from recon.reports.run_reports import NUM_ATTENTION_CLOUDS, NUM_SHOWN_CLOUDS, describe_training
from recon.reports.wandb_media import log_probe_accuracy, log_reconstructions
from recon.tasks.linear_probe import (
    CloudFeatures,
    ProbeResults,
    compare_features,
    encode_clouds,
    read_clouds,
    recalibrate_batch_norm,
)
from recon.tasks.pretrain import Pretraining
from recon.utils.atomic_write import write_atomic

FEATURE_TITLES = {
    "pretrained": "pretrained",
    "untrained": "untrained",
    "calibrated": "untrained, calibrated",
    "descriptor": "shape descriptor",
}
PROBE_NOTE = (
    "In brackets 95 % bootstrap intervals over the test shapes: they are few, so it is wide. "
    "Untrained: the same network before its first step; calibrated: its batch statistics measured "
    "on the train shapes, nothing learned. Descriptor: D2 histogram and box."
)


class FurnitureReport(Callback):
    """After training, measure the features on the embedded data and show what was learned.

    Writes results.json and report.html into `folder`. The untrained network is a copy made before
    the first step. `started` is when the run began, in ISO format.
    """

    def __init__(self, folder: str | Path, *, num_points: int = 1024, started: str) -> None:
        self.folder, self.num_points = Path(folder), num_points
        self.started = datetime.fromisoformat(started)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.untrained = deepcopy(_task(pl_module).model)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task, console = _task(pl_module), Console()
        with _busy(console, "measuring the features"):
            shapes = (Furniture(["train"]), Furniture(["test"]))
            clouds = (
                read_clouds(shapes[0], self.num_points),
                read_clouds(shapes[1], self.num_points),
            )
            networks = {
                "pretrained": task.model,
                "untrained": self.untrained.to(task.device),
                "calibrated": recalibrate_batch_norm(self.untrained, clouds[0]),
            }
            features = {
                name: (encode_clouds(network, clouds[0]), encode_clouds(network, clouds[1]))
                for name, network in networks.items()
            }
            results = compare_features(
                features, clouds, shapes, _class_features(task, shapes[0].classes)
            )
        with _busy(console, "drawing the report"):
            learned = features["pretrained"]
            shown = _exhibits(trainer, task, shapes[1], clouds[1], learned[1], results)
            write_report_data(self.folder, shown)
            rows = pick_example_rows(shapes[1].labels, NUM_SHOWN_CLOUDS)
            note = (
                "A test shape, then the train shapes most like it to the pretrained network, which "
                "saw points alone. Green: of the same class."
            )
            found = build_neighbor_section(
                learned[1].pooled,
                rows,
                learned[0].pooled,
                shapes[1],
                gallery_dataset=shapes[0],
                note=note,
            )
            write_page(
                self.folder / "report.html",
                "What this run learned",
                f"{describe_training(trainer, task)} This run took {self.seconds:.0f} s.",
                [
                    _worth(results, shapes[1]),
                    *build_introspection_sections(shown, subject="Test shapes"),
                    found,
                    *build_curve_sections(shown, predictor="the linear SVM on pretrained features"),
                ],
                (self.folder / "config.yaml").read_text(),
            )
        log_reconstructions(trainer, shown.reconstructions)
        log_probe_accuracy(trainer, results, FEATURE_TITLES, shapes[1].labels, shapes[1].classes)
        seconds = self.seconds
        write_atomic(self.folder / "results.json", _json(results, seconds).encode())
        classes = len(shapes[1].classes)
        _show(console, results, self.folder, classes=classes, seconds=seconds)

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return (datetime.now() - self.started).total_seconds()


def _busy(console: Console, doing: str) -> AbstractContextManager[Any]:
    """Say what takes a while: as a spinner in a terminal, else as a line."""
    if console.is_terminal:
        return console.status(doing)
    console.print(f"{doing} ...")
    return nullcontext()


def _task(module: LightningModule) -> Pretraining:
    if not isinstance(module, Pretraining):
        raise TypeError(f"Report shows pretraining, not {type(module).__name__}")
    return module


def _class_features(task: Pretraining, classes: Sequence[str]) -> Float[Tensor, "c d"] | None:
    """Ask the task's text teacher about the class names."""
    teachers = getattr(getattr(task, "ensemble", None), "teachers", {})
    return teachers["text"]({"text": list(classes)}).cpu() if "text" in teachers else None


def _exhibits(
    trainer: Trainer,
    task: Pretraining,
    shapes: Furniture,
    clouds: Float[Tensor, "n p 3"],
    features: CloudFeatures,
    results: ProbeResults,
) -> ReportData:
    rows = pick_example_rows(shapes.labels, NUM_SHOWN_CLOUDS)
    names = [f"{shapes.names[row]} ({shapes.classes[shapes.labels[row]]})" for row in rows]
    predicted = results.svm["pretrained"].predicted
    return ReportData(
        get_curves(trainer),
        reconstruct_shapes(task, names, clouds[rows], [shapes.cloud(row) for row in rows]),
        attention_maps(
            task.model, names[:NUM_ATTENTION_CLOUDS], clouds[rows[:NUM_ATTENTION_CLOUDS]]
        ),
        tsne(features.pooled, shapes.labels, shapes.names, shapes.classes),
        ConfusionMatrix(confusion_matrix(shapes.labels, predicted), shapes.classes),
    )


def _worth(results: ProbeResults, shapes: Furniture) -> Section:
    """Show what the features are worth, beside those of networks that learned nothing."""
    rows = [
        build_bar(
            f"linear SVM, {FEATURE_TITLES[name]}",
            row.accuracy,
            remark=row.hyperparameters,
            best=name == "pretrained",
        )
        for name, row in results.svm.items()
    ]
    rows += [
        Bar(
            f"gain over {FEATURE_TITLES[name]}, paired by shape",
            results.paired_differences[name].format_percent("+"),
        )
        for name in ("untrained", "calibrated")
    ]
    rows += [
        build_bar(
            f"zero-shot by class names, {FEATURE_TITLES[name]}", found, best=name == "pretrained"
        )
        for name, found in results.zero_shot.items()
    ]
    note = (
        f"Accuracy in % on {len(shapes)} test shapes of {len(shapes.classes)} classes, one seed, "
        "one view. Every row follows one rule: a linear SVM on the frozen features of the train "
        "split, its scaling and C chosen by cross-validation there with near-duplicate families "
        f"kept together, read once on the test split. {PROBE_NOTE}"
    )
    return build_bar_table("Is it worth anything?", note, rows)


def _json(results: ProbeResults, seconds: float) -> str:
    svm = {name: list(row.accuracy) for name, row in results.svm.items()}
    zero = results.zero_shot.get("pretrained")
    return json.dumps(
        {
            "svm": svm | {"gain": list(results.paired_differences["untrained"])},
            "gain_over": {name: list(gain) for name, gain in results.paired_differences.items()},
            "zero_shot": zero.mean if zero else None,
            "seconds": round(seconds, 1),
        },
        indent=2,
    )


def _show(
    console: Console, results: ProbeResults, folder: Path, *, classes: int, seconds: float
) -> None:
    """Print the table, and what to do next."""
    count = len(results.svm["pretrained"].predicted)
    table = Table(
        title=f"Accuracy in % on {count} test shapes of {classes} classes, one seed, one view",
        caption=PROBE_NOTE,
        caption_justify="left",
        box=SIMPLE,
        padding=0,
    )
    table.add_column("features")
    for heading in ("linear SVM", "paired gain over it", "zero-shot"):
        table.add_column(heading, justify="right")
    for name, row in results.svm.items():
        gain, zero = results.paired_differences.get(name), results.zero_shot.get(name)
        table.add_row(
            FEATURE_TITLES[name],
            row.accuracy.format_percent(),
            gain and gain.format_percent("+"),
            zero and zero.format_percent(),
            style="bold" if name == "pretrained" else "",
        )
    console.print(table)
    activated = shutil.which("python") == sys.executable
    python = "python" if activated else _from_here(Path(sys.executable))
    train = f"{python} -m recon.train"
    folder = _from_here(folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    console.print(
        f"\n[bold]{seconds:.0f} s.[/bold] Pictures: {folder / 'report.html'}\nTry next:\n"
        f"  {train} experiment=pretrain_furniture seed=1\n"
        f"  {train} experiment=pretrain_furniture student=generative\n"
        f"  {train} -m experiment=pretrain_furniture mask.ratio=0.3,0.6,0.8\n"
        f"  {python} -c \"import recon; print(recon.load('{checkpoint}'))\"",
        soft_wrap=True,
        highlight=False,
    )


def _from_here(path: Path) -> Path:
    """Write a path as short as it can be typed."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
