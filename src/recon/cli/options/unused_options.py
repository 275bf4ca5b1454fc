"""Refuse options that would change nothing: of parts that a run does not use, or misspelled."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf

SHARED_NODES = frozenset(
    ("channels", "checkpoint", "eval", "loss", "loss_weights", "mask", "model", "num_points")
    + ("optimizer", "point_layers", "probe_root", "projection_dims", "protocol", "published")
    + ("scheduler", "teacher", "towers", "transform", "view")
)
"""Nodes of a training configuration that act only where other nodes refer to them."""
HINTS = {
    "checkpoint": "it starts from random weights; ckpt_path=<file> resumes a run, "
    "experiment=finetune_... starts from a checkpoint",
    "eval": "only the options of the chosen eval.selection are used",
    "num_points": "all points of each cloud are used; data.num_points draws some of them",
    "protocol": "it is of classifiers",
}
"""Explanations by the first part of an option."""
_INTERPOLATION = re.compile(r"\$\{([^${}]*)\}")


def check_options_have_effect(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ValueError for the first command-line option that changes nothing in a training run.

    An option has an effect if the task, data, trainer, callbacks or logger refer to it. An added
    option (`+name=value`) must be an argument of the class that its node builds.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    used = None
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group.replace("/", ".")
        if override.is_delete() or override.value() is None or key.startswith("hydra."):
            continue
        if key.partition(".")[0] not in SHARED_NODES:
            continue
        used = find_used_keys(cfg) if used is None else used
        if not any(_is_within(key, other) or _is_within(other, key) for other in used):
            raise ValueError(_describe_unused(cfg, key, str(override.input_line)))


def _is_within(key: str, parent: str) -> bool:
    return f"{key}.".startswith(f"{parent}.")


def _describe_unused(cfg: DictConfig, key: str, line: str) -> str:
    task = str(OmegaConf.select(cfg, "task._target_")).rpartition(".")[2]
    hint = HINTS.get(key.partition(".")[0])
    return f"{line}: has no effect on this run ({task}){f': {hint}' if hint else ': leave it out'}"


def find_used_keys(cfg: DictConfig) -> set[str]:
    """Return the names of all nodes to which a run's own nodes refer, directly or through others.

    A run's own nodes are all except `SHARED_NODES`.
    """
    own = [str(name) for name in cfg if name not in SHARED_NODES]
    used, pending = set[str](), own
    while pending:
        key = pending.pop()
        if key in used:
            continue
        used.add(key)
        pending += _iter_references(cfg, _get_raw(cfg, key))
    return used


def _get_raw(cfg: DictConfig, key: str) -> Any:
    """Return the content of a node, with unresolved interpolations; None if there is no node."""
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
            return None
        node = node._get_node(name, validate_access=False)
    if isinstance(node, Container) and not node._is_none() and not node._is_interpolation():
        return OmegaConf.to_container(node)
    return None if node is None else node._value()


def _iter_references(cfg: DictConfig, content: Any) -> Iterator[str]:
    """Yield the names of the nodes that the interpolations in a content refer to."""
    if isinstance(content, dict):
        # Classifiers and segmenters write reports of their own.
        is_idle = "eval" in cfg and "PretrainingReport" in str(content.get("_target_"))
        for value in () if is_idle else content.values():
            yield from _iter_references(cfg, value)
    elif isinstance(content, list):
        for value in content:
            yield from _iter_references(cfg, value)
    elif isinstance(content, str):
        while match := _INTERPOLATION.search(content):
            inner = match[1].strip()
            name, _, arguments = inner.partition(":")
            keys = arguments.split(",") if ":" in inner else [name]
            yield from (key for key in keys if re.fullmatch(r"[\w.]+", key))
            text = ""
            if "${" in content[: match.start()] and ":" not in inner:  # part of a name, ${a.${b}}
                text = str(OmegaConf.select(cfg, inner, throw_on_resolution_failure=False))
            content = content[: match.start()] + text + content[match.end() :]
