"""Evaluate a checkpoint: python -m recon.evaluate task=svm checkpoint=<run>/checkpoints/last.ckpt.

Prints accuracies beside the published figure, says what was measured, and hashes that into a
fingerprint: figures with different fingerprints are not comparable.
"""

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import configure_malloc, resolve_device, silence_known_warnings
from recon.utils.atomic_write import write_atomic

DEFAULT_NUM_POINTS = 1024

if TYPE_CHECKING:
    from torch import Tensor

    from recon.reports.run_reports import NetworkInspection
    from recon.tasks.feature_extraction import ExtractedFeatures
    from recon.tasks.metrics import ClassificationScores


def evaluate(cfg: DictConfig) -> "ClassificationScores | None":
    """Measure what `weights` are worth on the data, write and print it; None without labels."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.reports.run_reports import inspect_network
    from recon.tasks.feature_extraction import extract_features
    from recon.tasks.metrics import classification_scores

    silence_known_warnings()
    configure_malloc()
    seed_everything(cfg.seed, verbose=False)
    task = instantiate(cfg.task, _convert_="all")
    view = _build_eval_transform(cfg, task.checkpoint_task)
    network = _network(cfg, task.checkpoint_task)
    data = instantiate(cfg.data, _convert_="all")
    if "train" in task.splits:
        data.setup("fit")
    data.setup("test")
    dataset = data.test_dataset
    data.keys |= {"label"} if len(dataset.labels) else set()
    loaders = {"test": data.test_dataloader}
    if "train" in task.splits:
        loaders["train"] = lambda: data.sequential_dataloader(data.dataset)
    shapes = {name: extract_features(network, data, loaders[name](), view) for name in task.splits}
    test = shapes["test"]
    classes = list(cfg.classes or test.class_names or dataset.classes)
    if not classes:
        raise ValueError(f"{data.root}: has no classes: name those to choose among, classes=[...]")
    for why in {why: None for part in shapes.values() for why in part.skip_reasons}:
        print(f"skipped: {why}")
    if len(dataset.labels):
        shapes = {name: _renamed(part, dataset.classes, classes) for name, part in shapes.items()}
    logits = task(shapes, classes)
    about = {
        **task.fingerprint_fields(),
        "data": {"set": type(data).__name__, "split": _plain(cfg.data.get("test_split"))},
        **data.settings(),
        "test_shapes": len(test.ids),
        "classes": hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:12],
        "skipped": len(test.skip_reasons),
        "num_points": data.num_points,
        "test_transform": _plain(cfg.data.get("test_transform")),
        "patches": [network.grouper.groups, network.grouper.group_size],
        "view": [_told(part) for part in getattr(view, "transforms", [view])],
        "up": f"{dataset.up}, turned to {data.target_up or dataset.up}",
    }
    found = classification_scores(logits, shapes["test"].labels) if len(dataset.labels) else None
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    predicted = [classes[row] for row in logits.argmax(1).tolist()]
    _predictions(folder / "predictions.csv", shapes["test"], predicted, logits, classes)
    _report(found, predicted, about, classes, cfg)
    _page(
        found,
        about,
        classes,
        cfg,
        inspect_network(network, data, dataset, cfg.num_points or DEFAULT_NUM_POINTS),
    )
    return found


def _network(cfg: DictConfig, trained: Literal["pretrain", "classify"]) -> Any:
    """Load the weights, with what they do not tell and patches of the asked size."""
    from recon.checkpoints.loading import load
    from recon.layers.grouping import PatchGrouper

    told = dict(cfg.network)
    group_size = told.pop("group_size")
    network = load(cfg.checkpoint, task=trained, **told).to(resolve_device(cfg.device))
    if group_size is not None:  # features may be read from patches of another size
        cut = network.grouper
        network.grouper = PatchGrouper(
            cut.groups, group_size, skip_near_origin=cut.skip_near_origin
        )
    return network


def _renamed(
    shapes: "ExtractedFeatures", known: Sequence[str], classes: Sequence[str]
) -> "ExtractedFeatures":
    """Renumber the labels as `classes` does; raise ValueError for one that is not among them."""
    import torch

    present = [known[row] for row in torch.unique(shapes.labels).tolist()]
    if lacking := [name for name in present if name not in classes]:
        raise ValueError(
            f"shapes are labelled {lacking[0]!r}, which is none of the {len(classes)} classes to "
            f"choose among: {', '.join(classes)}"
        )
    number = [classes.index(name) if name in classes else -1 for name in known]
    return shapes._replace(labels=torch.tensor(number)[shapes.labels])


def _build_eval_transform(cfg: DictConfig, trained: str) -> Any:
    """Build what the network sees of a cloud: as told, or as a classifier's own tests had it.

    Those stand in the config.yaml of its run; only transforms of this library are taken from there.
    """
    from hydra.utils import instantiate

    from recon.checkpoints.run_config import get_nested, instantiate_allowed, read_config
    from recon.data import transforms

    if cfg.view is not None:
        return instantiate(cfg.view, _convert_="all")
    run = Path(cfg.checkpoint).absolute().parent.parent / "config.yaml"
    if trained == "classify" and cfg.num_points is None and run.is_file():
        home = transforms.__name__
        own = [f"{home}.{n}" for n, v in vars(transforms).items() if _is_of(home, v)]
        if (node := get_nested(read_config(run), "view")) is not None:
            return instantiate_allowed(node, own, run, "say what it saw, num_points=<number>")
    count = transforms.FarthestPointSample(cfg.num_points or DEFAULT_NUM_POINTS)
    return transforms.Compose([transforms.UnitSphere(), count])


def _is_of(module: str, value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == module


def _told(part: Any) -> str:
    count = getattr(part, "num_points", None)
    return type(part).__name__ + (f" {count}" if count else "")


def _plain(value: Any) -> Any:
    """Return a node of the configuration as JSON holds it."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def compute_fingerprint(protocol: dict[str, Any]) -> str:
    """Return 12 hexadecimal digits that change with anything that was declared."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def _predictions(
    path: Path,
    shapes: "ExtractedFeatures",
    predicted: list[str],
    logits: "Tensor",
    classes: list[str],
) -> None:
    """Write a line for each shape: its class as predicted, that class's score, its own class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "predicted", "score", "class"])
        labels = [classes[row] for row in shapes.labels.tolist()] or [""] * len(predicted)
        scores = logits.amax(1).tolist()
        for name, guess, value, label in zip(shapes.ids, predicted, scores, labels, strict=True):
            writer.writerow([name, guess, f"{value:.4f}", label])


def _report(
    found: "ClassificationScores | None",
    predicted: list[str],
    about: dict[str, Any],
    classes: list[str],
    cfg: DictConfig,
) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recon.reports.confusion import build_class_table, plot_confusion_matrix, scores_to_dict

    console, folder, mark = Console(), Path(cfg.output_dir), compute_fingerprint(about)
    result = {"fingerprint": mark, "declared": about, "checkpoint": str(cfg.checkpoint)}
    result |= {"classes": classes, "published": cfg.published}
    if found is None:
        counts = Counter(predicted).most_common()
        table = Table("predicted", "shapes", title="No labels: what was predicted", box=SIMPLE)
        for name, count in counts:
            table.add_row(escape(name), str(count))
        result["predicted"] = dict(counts)
    else:
        console.print(build_class_table(found, classes))
        plot_confusion_matrix(found.confusion_matrix, classes, cfg.name, folder / "confusion.png")
        title = f"Accuracy in % on {about['test_shapes']} test shapes"
        table = Table("measure", "here", "published, paper's protocol", title=title, box=SIMPLE)
        for row in _rows(found, cfg.published):
            table.add_row(*row)
        result |= scores_to_dict(found, classes)
    console.print(table)
    for key, value in about.items():
        console.print(f"{key}: {value}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"fingerprint: {mark}", highlight=False)
    console.print(f"written to {folder}", soft_wrap=True, highlight=False)
    write_atomic(folder / "results.json", json.dumps(result, indent=1).encode())


def _page(
    found: "ClassificationScores | None",
    about: dict[str, Any],
    classes: list[str],
    cfg: DictConfig,
    seen: "NetworkInspection",
) -> None:
    """Leave the configuration and report.html in the folder."""
    from recon.reports.html_sections import Bar, build_bar
    from recon.reports.run_reports import write_test_report

    folder = Path(cfg.output_dir)
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg).encode())
    rows = []
    if found is not None:
        rows = [
            build_bar("overall", found.overall_accuracy, best=True),
            build_bar("mean class", found.mean_class_accuracy),
        ]
        rows += [build_bar(f"top-{k}", value) for k, value in found.top_k_accuracy.items() if k > 1]
    rows += [Bar("published, paper's protocol", str(cfg.published))] if cfg.published else []
    rows += [Bar(key, str(value)) for key, value in about.items()]
    write_test_report(
        folder,
        "What these weights are worth",
        f"{cfg.checkpoint}, on {about['test_shapes']} test shapes. Fingerprint "
        f"{compute_fingerprint(about)}: "
        "figures with different ones do not compare.",
        rows,
        scores=found,
        classes=classes,
        inspection=seen,
        curves={},
        predictor=f"the {about['probe']}",
    )


def _rows(
    found: "ClassificationScores", published: float | str | None
) -> Sequence[tuple[str, str, str]]:
    tops = [
        (f"top-{k}", f"{100 * value:.1f}", "") for k, value in found.top_k_accuracy.items() if k > 1
    ]
    return [
        ("overall, 95 % interval", found.overall_accuracy.format_percent(), str(published or "-")),
        ("mean class", f"{100 * found.mean_class_accuracy:.1f}", ""),
        *tops,
    ]


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate as the command line says; wrong input ends in one line."""
    from hydra.core.hydra_config import HydraConfig

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # each job of a sweep has its own
    with one_line_errors():
        evaluate(cfg)


if __name__ == "__main__":
    check_renamed_options("evaluate", sys.argv[1:])
    main()
