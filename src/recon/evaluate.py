"""Evaluate a frozen network: python -m recon.evaluate task=svm weights=<run>/checkpoints/last.ckpt.

Prints accuracies beside the published figure, says what was measured, and hashes that into a
fingerprint: figures with different fingerprints are not comparable.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from recon.entry import conf_dir, keep_large_blocks, one_line_errors, quiet

if TYPE_CHECKING:
    from recon.tasks.scores import Scores


def evaluate(cfg: DictConfig) -> "Scores":
    """Measure what the features of `weights` are worth; write and print it."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from hydra.utils import instantiate
    from lightning import seed_everything

    from recon.layers.grouping import PatchGrouper
    from recon.models.checkpoint import load
    from recon.tasks.frozen import read_features
    from recon.tasks.scores import score

    quiet()
    keep_large_blocks()
    seed_everything(cfg.seed, verbose=False)
    told = dict(cfg.network)
    group_size = told.pop("group_size")
    network = load(cfg.weights, **told)
    if group_size is not None:  # frozen features may be read from patches of another size
        cut = network.grouper
        network.grouper = PatchGrouper(
            cut.groups, group_size, skip_near_origin=cut.skip_near_origin
        )
    data = instantiate(cfg.data, keys=["label"], _convert_="all")
    task, view = (instantiate(node, _convert_="all") for node in (cfg.task, cfg.view))
    if "train" in task.splits:
        data.setup("fit")
    data.setup("test")
    loaders = {"test": data.test_dataloader}
    if "train" in task.splits:
        loaders["train"] = lambda: data.ordered(data.dataset)
    shapes = {name: read_features(network, data, loaders[name](), view) for name in task.splits}
    classes = data.test_dataset.classes
    found = score(task(shapes, classes), shapes["test"].labels)
    about = {
        **task.about(),
        "data": {"set": type(data).__name__, "split": _plain(cfg.data.get("test_split"))},
        **data.settings(),
        "test_shapes": len(shapes["test"].ids),
        "classes": hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()[:12],
        "points": cfg.points,
        "patches": [network.grouper.groups, network.grouper.group_size],
        "view": [type(part).__name__ for part in getattr(view, "transforms", [view])],
        "up": data.up,
    }
    _report(found, about, cfg)
    return found


def _plain(split: Any) -> Any:
    return split if isinstance(split, str | None) else list(split)


def fingerprint(about: dict[str, Any]) -> str:
    """Return 12 hexadecimal digits that change with anything that was declared."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def _report(found: "Scores", about: dict[str, Any], cfg: DictConfig) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = f"Accuracy in % on {about['test_shapes']} test shapes"
    table = Table("measure", "here", "published", title=title, box=SIMPLE)
    for name, here, published in _rows(found, cfg.published):
        table.add_row(name, here, published)
    console.print(table)
    for key, value in about.items():
        console.print(f"{key}: {value}", soft_wrap=True, highlight=False)
    mark = fingerprint(about)
    console.print(f"fingerprint: {mark}", highlight=False)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "fingerprint": mark,
        "declared": about,
        "weights": str(cfg.weights),
        "overall_accuracy": found.overall._asdict(),
        "mean_class_accuracy": found.mean_class,
        "top": {f"top{k}": value for k, value in found.top.items()},
        "published": cfg.published,
        "confusion": found.confusion.tolist(),
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1))


def _rows(found: "Scores", published: float | str | None) -> Sequence[tuple[str, str, str]]:
    tops = [(f"top-{k}", f"{100 * value:.1f}", "") for k, value in found.top.items() if k > 1]
    return [
        ("overall, 95 % interval", found.overall.percent(), str(published or "-")),
        ("mean class", f"{100 * found.mean_class:.1f}", ""),
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
    main()
