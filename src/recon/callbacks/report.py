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

import numpy as np
import torch
from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from recon.callbacks.media import show_pretraining
from recon.callbacks.page import Neighbour, Page, Rebuilt, write_page
from recon.data.datamodule import PointCloudDataModule
from recon.data.furniture import Furniture
from recon.models.recon import PretrainingNetwork
from recon.tasks.pretrain import Pretraining
from recon.tasks.probe import (
    Features,
    Results,
    extract,
    measure,
    nearest,
    stack_clouds,
    with_batch_statistics,
)

SHOWN = 6
"""Shapes in the gallery."""
NEIGHBOURS = 6
TITLES = {
    "pretrained": "pretrained",
    "untrained": "untrained",
    "calibrated": "untrained, calibrated",
    "descriptor": "shape descriptor",
}
NOTES = (
    "In brackets 95 % bootstrap intervals over the test shapes: they are few, so it is wide. "
    "Untrained: the same network before its first step; calibrated: its batch statistics measured "
    "on the train shapes, nothing learned. Descriptor: D2 histogram and box."
)


class Report(Callback):
    """After training, measure the features on the embedded data and show what was learned.

    Writes results.json and report.html into `folder`. The untrained network is a copy made before
    the first step. `started` is when the run began, in ISO format.
    """

    def __init__(self, folder: str | Path, *, points: int = 1024, started: str) -> None:
        self.folder, self.points = Path(folder), points
        self.started = datetime.fromisoformat(started)
        self.history: dict[str, dict[int, float]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.untrained = deepcopy(_task(pl_module).model)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for name, value in trainer.callback_metrics.items():
                if name.startswith("train/"):
                    # Of the batches that make up one step the last one stands.
                    self.history.setdefault(name.removeprefix("train/"), {})[step] = float(value)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task, console = _task(pl_module), Console()
        with _busy(console, "measuring the features"):
            shapes = (Furniture(["train"]), Furniture(["test"]))
            clouds = (stack_clouds(shapes[0], self.points), stack_clouds(shapes[1], self.points))
            networks = {
                "pretrained": task.model,
                "untrained": self.untrained.to(task.device),
                "calibrated": with_batch_statistics(self.untrained, clouds[0]),
            }
            features = {
                name: (extract(network, clouds[0]), extract(network, clouds[1]))
                for name, network in networks.items()
            }
            results = measure(features, clouds, shapes, _class_features(task, shapes[0].classes))
        with _busy(console, "drawing the report"):
            page = Page(
                results=results,
                trained=_trained(trainer, task),
                titles=TITLES,
                notes=NOTES,
                history=self.history,
                rebuilt=_rebuild(task, shapes[1], clouds[1]),
                neighbours=_neighbours(features["pretrained"], shapes),
                classes=shapes[1].classes,
                truth=shapes[1].labels,
                config=(self.folder / "config.yaml").read_text(),
                seconds=self.seconds,
            )
            write_page(self.folder / "report.html", page)
        show_pretraining(trainer, page)
        seconds = self.seconds
        (self.folder / "results.json").write_text(_json(results, seconds))
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


def _trained(trainer: Trainer, task: Pretraining) -> str:
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


def _class_features(task: Pretraining, classes: Sequence[str]) -> Float[Tensor, "c d"] | None:
    """Ask the task's text teacher about the class names."""
    teachers = getattr(getattr(task, "ensemble", None), "teachers", {})
    return teachers["text"]({"text": list(classes)}).cpu() if "text" in teachers else None


def _spread(shapes: Furniture) -> list[int]:
    """Choose one shape of each of some classes, the same ones every time."""
    classes = np.linspace(0, len(shapes.classes) - 1, SHOWN).round()
    return [int(np.flatnonzero(shapes.labels == label)[0]) for label in classes]


@torch.no_grad()
def _rebuild(task: Pretraining, shapes: Furniture, clouds: Float[Tensor, "n p 3"]) -> list[Rebuilt]:
    """Hide patches of some test shapes and rebuild them."""
    if task.mask is None or not hasattr(task.model, "decoder"):
        return []
    chosen = _spread(shapes)
    network: PretrainingNetwork = task.model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patches = network.grouper(clouds[chosen].to(task.device))
        mask = task.mask(patches.centers)
    out = network.rebuild(patches, mask)
    whole = patches.points + patches.centers.unsqueeze(2)
    rebuilt = (out.predicted + patches.centers[mask].unsqueeze(1)).view(len(chosen), -1, 3)
    return [
        Rebuilt(
            name=f"{shapes.names[row]} ({shapes.classes[shapes.labels[row]]})",
            points=shapes.cloud(row).points,
            colors=np.asarray(shapes.cloud(row).colors),
            visible=whole[i][~mask[i]].flatten(0, 1).cpu().numpy(),
            rebuilt=rebuilt[i].cpu().numpy(),
        )
        for i, row in enumerate(chosen)
    ]


def _neighbours(
    features: tuple[Features, Features], shapes: tuple[Furniture, Furniture]
) -> list[list[Neighbour]]:
    """Find the train shapes nearest to some test shapes; each row starts with the test shape."""
    train, test = shapes
    chosen = _spread(test)
    found = nearest(features[1].pooled[chosen], features[0].pooled, NEIGHBOURS)

    def entry(source: Furniture, row: int, label: str) -> Neighbour:
        own = source.classes[source.labels[row]]
        return Neighbour(source.names[row], own, source.image(row), same=own == label)

    rows = []
    for row, near in zip(chosen, found.tolist(), strict=True):
        label = test.classes[test.labels[row]]
        rows.append([entry(test, row, label), *(entry(train, other, label) for other in near)])
    return rows


def _json(results: Results, seconds: float) -> str:
    svm = {name: list(row.accuracy) for name, row in results.rows.items()}
    zero = results.zero_shot.get("pretrained")
    return json.dumps(
        {
            "svm": svm | {"gain": list(results.gains["untrained"])},
            "gain_over": {name: list(gain) for name, gain in results.gains.items()},
            "zero_shot": zero.mean if zero else None,
            "seconds": round(seconds, 1),
        },
        indent=2,
    )


def _show(
    console: Console, results: Results, folder: Path, *, classes: int, seconds: float
) -> None:
    """Print the table, and what to do next."""
    count = len(results.rows["pretrained"].predicted)
    table = Table(
        title=f"Accuracy in % on {count} test shapes of {classes} classes, one seed, one view",
        caption=NOTES,
        caption_justify="left",
        box=SIMPLE,
        padding=0,
    )
    table.add_column("features")
    for heading in ("linear SVM", "paired gain over it", "zero-shot"):
        table.add_column(heading, justify="right")
    for name, row in results.rows.items():
        gain, zero = results.gains.get(name), results.zero_shot.get(name)
        table.add_row(
            TITLES[name],
            row.accuracy.percent(),
            gain and gain.percent("+"),
            zero and zero.percent(),
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
