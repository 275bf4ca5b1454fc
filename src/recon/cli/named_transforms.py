"""Compose transforms that options name, such as data.test_transform=any_pose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from recon.cli.config_dir import conf_dir

OPTIONS = ("transform", "test_transform", "view", "train_view", "vote_view")
"""Names of the options that describe transforms, anywhere in a configuration."""
OTHER_OPTIONS = ("published",)
"""Options that contain the same names, with other values."""


def compose_named_transforms(cfg: DictConfig, num_points: int | None) -> None:
    """Replace each transform that is given by name by its configuration in conf/transform.

    `num_points` is the number of points that it keeps if `num_points` of the configuration is null.
    Raises ValueError that lists the names for an unknown one.
    """
    files: dict[str, Path] | None = None
    for option, node, key in [*_find_named_transforms(cfg)]:
        files = _find_transform_files() if files is None else files
        name = node[key]
        if name not in files:
            raise ValueError(
                f"{option}={name}: there is no transform of this name: choose one of "
                f"{', '.join(files)}, or set {option}={{_target_: <class>, ...}}"
            )
        with open_dict(cfg):
            node[key] = _resolve_transform(cfg, OmegaConf.load(files[name]), num_points)


def _find_named_transforms(
    node: DictConfig, prefix: str = ""
) -> Iterator[tuple[str, DictConfig, str]]:
    """Yield the full name, the parent node and the key of each transform given by name."""
    for key in map(str, node):
        if (
            key in OTHER_OPTIONS
            or OmegaConf.is_missing(node, key)
            or OmegaConf.is_interpolation(node, key)
        ):
            continue
        value = node[key]
        if isinstance(value, DictConfig):
            yield from _find_named_transforms(value, f"{prefix}{key}.")
        elif key in OPTIONS and isinstance(value, str):
            yield f"{prefix}{key}", node, key


def _find_transform_files() -> dict[str, Path]:
    """Return the files of conf/transform by name, also of a `--config-dir` of the command line."""
    from hydra.core.hydra_config import HydraConfig

    folders = [Path(conf_dir())]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders += [Path(source.path) for source in sources if source.schema == "file"]
    files = [file for folder in folders for file in (folder / "transform").glob("*.yaml")]
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def _resolve_transform(cfg: DictConfig, transform: Any, num_points: int | None) -> Any:
    """Return the configuration of a transform with the values that it refers to."""
    root: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    with open_dict(root):
        if root.get("num_points") is None:
            root["num_points"] = num_points
        root["named_transform"] = transform
    return OmegaConf.to_container(root["named_transform"], resolve=True)
