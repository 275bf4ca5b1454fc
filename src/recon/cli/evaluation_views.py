"""Build and describe the transforms of the clouds that an evaluation classifies."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

DEFAULT_NUM_POINTS = 1024
VIEW_OPTIONS = {"test": "view", "train": "train_view"}
"""Option with the view of each split."""


def build_views(cfg: DictConfig, task: Any) -> dict[str, Any]:
    """Build the transform of the clouds of each split that the task needs."""
    from hydra.utils import instantiate

    views = {"test": build_test_view(cfg, task.checkpoint_task)}
    if "train" in task.splits:
        views["train"] = instantiate(cfg.train_view, _convert_="all") or _default_view(cfg)
    elif cfg.train_view is not None:
        raise ValueError(
            "train_view: is set, but only a linear SVM has training shapes: set task=svm, or leave "
            "train_view unset"
        )
    return views


def _default_view(cfg: DictConfig) -> Any:
    """Return the transform to the unit sphere and to `num_points` farthest points."""
    from recon.data import transforms

    sample = transforms.FarthestPointSample(cfg.num_points or DEFAULT_NUM_POINTS)
    return transforms.Compose([transforms.UnitSphere(), sample])


def build_test_view(cfg: DictConfig, checkpoint_task: str) -> Any:
    """Build the transform of test clouds from the options, or from config.yaml of a run.

    config.yaml is read for classifiers only, and only transforms of this library are built.
    """
    from hydra.utils import instantiate

    from recon.checkpoints.run_config import get_nested, instantiate_allowed, read_config
    from recon.data import transforms

    if cfg.view is not None:
        return instantiate(cfg.view, _convert_="all")
    config_path = Path(cfg.checkpoint).absolute().parent.parent / "config.yaml"
    if checkpoint_task == "classify" and cfg.num_points is None and config_path.is_file():
        module = transforms.__name__
        allowed = [f"{module}.{n}" for n, v in vars(transforms).items() if _is_class_of(module, v)]
        if (node := get_nested(read_config(config_path), "view")) is not None:
            hint = "set the number of points instead, num_points=<number>"
            return instantiate_allowed(node, allowed, config_path, hint)
    return _default_view(cfg)


def _is_class_of(module: str, value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == module


def describe_view(view: Any) -> list[str]:
    """Describe each transform of a view by its name and its parameters."""
    return [
        " ".join([type(part).__name__, *(f"{name}={value}" for name, value in vars(part).items())])
        for part in getattr(view, "transforms", [view])
    ]
