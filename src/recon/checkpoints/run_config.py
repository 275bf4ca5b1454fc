"""Read a run's YAML configuration as plain values, and build allowed objects from it."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from recon.data.io.file_checks import check_file, wrap_read_errors

MAX_CONFIG_BYTES, MAX_NESTING, MAX_YAML_EVENTS, MAX_SCALAR_CHARS = 2**22, 64, 20_000, 2**16
"""Maximum size of a file in bytes, nesting depth, number of nodes, characters of a value."""


def read_config(path: Path) -> Any:
    """Read a YAML file as plain values; interpolations (`${...}`) stay text.

    Raises FileNotFoundError or ValueError that names the file.
    """
    check_file(path, MAX_CONFIG_BYTES)
    with wrap_read_errors(path, "configuration"):
        text = path.read_text(encoding="utf-8")
        _check_events(text)
        return OmegaConf.to_container(OmegaConf.create(text))


def _check_events(text: str) -> None:
    """Raise ValueError for text that is too large or too deep, and for aliases.

    A few aliases can expand to any number of values.
    """
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR_CHARS:
            raise ValueError(
                f"it has a value of {len(event.value):,} characters, "
                f"the maximum is {MAX_SCALAR_CHARS:,}"
            )
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it contains YAML aliases, which are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if number > MAX_YAML_EVENTS:
            raise ValueError(f"it has more than {MAX_YAML_EVENTS:,} nodes")
        if depth > MAX_NESTING:
            raise ValueError(f"it is nested more than {MAX_NESTING} levels deep")


def get_nested(config: Any, *names: str) -> Any:
    """Return the value at a path of names in a configuration, None if there is none."""
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config


def instantiate_allowed(node: Any, allowed: Collection[str], path: Path, hint: str) -> Any:
    """Build the object that a configuration describes, if all its targets are allowed.

    Raises ValueError that names the file and the first target that is not allowed, followed by
    the hint.
    """
    targets = [*_find_targets(node)]
    if unknown := [name for name in targets if name not in allowed]:
        raise ValueError(
            f"{path}: refers to {unknown[0]!r}, which is not allowed, so nothing was built: {hint}"
        )
    if not targets:
        raise ValueError(f"{path}: describes no object to build: {hint}")
    with wrap_read_errors(path, "configuration"):
        return instantiate(OmegaConf.create(node), _convert_="all")


def _find_targets(node: Any) -> Iterator[str]:
    """Yield every target that Hydra would build, at any depth.

    Interpolations are yielded too, because they can become any value. Hydra's other keys (such as
    `_args_`) are yielded too, because positional arguments would bypass a check of names.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            elif str(key).startswith("_"):
                yield str(key)
            else:
                yield from _find_targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _find_targets(value)
    elif isinstance(node, str) and "${" in node:
        yield node
