"""Evaluate a checkpoint: python -m recon.evaluate task=svm checkpoint=<run>/checkpoints/last.ckpt.

Prints accuracies next to the published one, and the protocol with its fingerprint. Results with
different fingerprints are not comparable.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from recon.cli.config_dir import conf_dir
from recon.cli.errors import format_error, one_line_errors
from recon.cli.evaluation_views import (
    DEFAULT_NUM_POINTS,
    VIEW_OPTIONS,
    build_views,
    describe_view,
)
from recon.cli.named_transforms import compose_named_transforms
from recon.cli.program import run_program
from recon.cli.run_summary import (
    describe_network,
    describe_source,
    print_config,
    print_summary,
    shorten_path,
)
from recon.cli.runtime import configure_malloc, silence_known_warnings
from recon.utils.atomic_write import write_atomic
from recon.utils.device import resolve_device
from recon.utils.printable import format_count
from recon.utils.run_log import run_log

TASKS = {"LinearProbe": "svm", "ZeroShotClassifier": "zero_shot", "TrainedClassifier": "classify"}
"""Names of the tasks in results.json, by class."""

if TYPE_CHECKING:
    from torch import Tensor

    from recon.reports.evaluation import Evaluation
    from recon.tasks.feature_extraction import ExtractedFeatures
    from recon.tasks.metrics import ClassificationScores


def evaluate(cfg: DictConfig) -> "ClassificationScores | None":
    """Evaluate a checkpoint, print and write the results; return None if there are no labels."""
    # Imported here, because it takes seconds: --help and a misspelled option should not wait.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.reports.evaluation import Evaluation
    from recon.tasks.metrics import classification_scores
    from recon.utils.progress import show_status

    silence_known_warnings()
    configure_malloc()
    seed_everything(cfg.seed, verbose=False)
    compose_named_transforms(cfg, DEFAULT_NUM_POINTS)
    task = instantiate(cfg.task, _convert_="all")
    data = instantiate(cfg.data, _convert_="all")
    views = build_views(cfg, task)
    network = _load_network(cfg, task.checkpoint_task)
    print_summary(str(cfg.name), _describe_evaluation(cfg, task, data, network))
    print_config(cfg)
    shapes = _extract_splits(network, data, views)
    has_labels = bool(len(data.test_dataset.labels))
    classes = _choose_classes(cfg, data, shapes["test"])
    for reason in {reason: None for part in shapes.values() for reason in part.skip_reasons}:
        print(f"skipped: {reason}")
    if has_labels:
        names = data.test_dataset.classes
        shapes = {split: _remap_labels(part, names, classes) for split, part in shapes.items()}
    with show_status(f"classifying {format_count(len(shapes['test'].ids), 'test shape')}"):
        logits = task(shapes, classes)
    protocol = {
        **task.fingerprint_fields(),
        **_describe_protocol(cfg, data, network, views, shapes["test"], classes),
    }
    scores = classification_scores(logits, shapes["test"].labels) if has_labels else None
    evaluation = Evaluation(
        name=cfg.name,
        task=TASKS.get(type(task).__name__, type(task).__name__),
        checkpoint=str(cfg.checkpoint),
        protocol=protocol,
        fingerprint=compute_fingerprint(protocol),
        classes=classes,
        predicted=[classes[row] for row in logits.argmax(1).tolist()],
        scores=scores,
        published=cfg.published,
    )
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg).encode())
    _write_evaluation(folder, evaluation, shapes["test"], logits, network, data, cfg.num_points)
    return scores


def _write_evaluation(
    folder: Path,
    evaluation: "Evaluation",
    test: "ExtractedFeatures",
    logits: "Tensor",
    network: Any,
    data: Any,
    num_points: int | None,
) -> None:
    """Print the results; write them, the predictions and the report."""
    from recon.reports.evaluation import write_evaluation_report, write_predictions, write_results
    from recon.reports.run_reports import inspect_network
    from recon.utils.progress import show_status

    write_predictions(folder / "predictions.csv", evaluation, test, logits)
    write_results(folder, evaluation)
    with show_status("writing the report"):
        inspection = inspect_network(
            network, data, data.test_dataset, num_points or DEFAULT_NUM_POINTS
        )
        write_evaluation_report(folder, evaluation, inspection)


def _describe_evaluation(cfg: DictConfig, task: Any, data: Any, network: Any) -> dict[str, str]:
    """Return the rows of the summary of an evaluation."""
    splits = {"train": data.split, "test": data.test_split}
    names = ", ".join(f"{name} split: {_to_container(splits[name])}" for name in task.splits)
    return {
        "evaluate": f"{type(task).__name__}; {names}",
        "checkpoint": str(cfg.checkpoint),
        "network": describe_network(network),
        "data": describe_source(data),
        "view": f"{format_count(cfg.num_points or DEFAULT_NUM_POINTS, 'point')} per shape"
        if cfg.view is None
        else "",
        "device": f"{next(network.parameters()).device}",
        "seed": str(cfg.seed),
        "output": shorten_path(cfg.output_dir),
    }


def _load_network(cfg: DictConfig, task: Literal["pretrain", "classify"]) -> Any:
    """Load the network with the options of `cfg.network`, and set its patch size."""
    from recon.checkpoints.loading import load
    from recon.layers.grouping import PatchGrouper

    options, device = dict(cfg.network), resolve_device(cfg.device)
    group_size = options.pop("group_size")
    network = load(cfg.checkpoint, task=task, **options).to(device)
    if group_size is not None:  # it may differ from the size in training
        grouper = network.grouper
        network.grouper = PatchGrouper(
            grouper.groups, group_size, skip_near_origin=grouper.skip_near_origin
        )
    return network


def _extract_splits(
    network: Any, data: Any, views: dict[str, Any]
) -> dict[str, "ExtractedFeatures"]:
    """Set up the data, and extract the features of each split after its view."""
    from recon.tasks.feature_extraction import extract_features
    from recon.utils.progress import track

    if "train" in views:
        data.setup("fit")
    data.setup("test")
    data.keys |= {"label"} if len(data.test_dataset.labels) else set()
    loaders = {"test": data.test_dataloader}
    if "train" in views:
        loaders["train"] = lambda: data.sequential_dataloader(data.dataset)
    tracked = {name: track(loaders[name](), f"encoding split {name}", "batches") for name in views}
    return {
        split: extract_features(network, data, tracked[split], view, is_test=split == "test")
        for split, view in views.items()
    }


def _choose_classes(cfg: DictConfig, data: Any, test: "ExtractedFeatures") -> list[str]:
    """Return the classes from the options, else from the classifier, else from the data."""
    classes = list(cfg.classes or test.class_names or data.test_dataset.classes)
    if not classes:
        raise ValueError(
            f"{data.root}: the data define no classes: list the classes to choose among, "
            "classes=[...]"
        )
    return classes


def _remap_labels(
    shapes: "ExtractedFeatures", names: Sequence[str], classes: Sequence[str]
) -> "ExtractedFeatures":
    """Map labels from rows of `names` to rows of `classes`; raise ValueError if one is missing."""
    import torch

    present = [names[row] for row in torch.unique(shapes.labels).tolist()]
    if missing := [name for name in present if name not in classes]:
        raise ValueError(
            f"shapes are labeled {missing[0]!r}, which is none of the {len(classes)} classes to "
            f"choose among: {', '.join(classes)}"
        )
    rows = [classes.index(name) if name in classes else -1 for name in names]
    return shapes._replace(labels=torch.tensor(rows)[shapes.labels])


def _describe_protocol(
    cfg: DictConfig,
    data: Any,
    network: Any,
    views: dict[str, Any],
    test: "ExtractedFeatures",
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the settings of data and network that affect the results, as JSON types."""
    dataset = data.test_dataset
    return {
        "data": {"set": type(data).__name__, "split": _to_container(cfg.data.get("test_split"))},
        **data.settings(),
        "test_shapes": len(test.ids),
        "classes": hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:12],
        "skipped": len(test.skip_reasons),
        "num_points": data.num_points,
        "test_transform": _to_container(cfg.data.get("test_transform")),
        "patches": [network.grouper.groups, network.grouper.group_size],
        **{VIEW_OPTIONS[split]: describe_view(view) for split, view in views.items()},
        "up": f"{dataset.up}, turned to {data.target_up or dataset.up}",
    }


def _to_container(value: Any) -> Any:
    """Convert a node of the configuration to JSON types."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def compute_fingerprint(protocol: dict[str, Any]) -> str:
    """Return 12 hexadecimal digits that depend on every setting of the protocol."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate with command-line options; input errors are printed in one line."""
    from hydra.core.hydra_config import HydraConfig

    cfg.output_dir = HydraConfig.get().runtime.output_dir  # differs by job of a multirun
    with one_line_errors(), run_log(Path(cfg.output_dir), describe_error=format_error):
        evaluate(cfg)


if __name__ == "__main__":
    run_program("evaluate", main)
