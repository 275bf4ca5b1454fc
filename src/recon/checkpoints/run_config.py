"""Configurations that lie beside weights: plain values, of which only what is known is built."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from recon.data.io.file_checks import check_file, wrap_read_errors

MAX_CONFIG_BYTES, MAX_NESTING, MAX_YAML_EVENTS, MAX_SCALAR_CHARS = 2**22, 64, 20_000, 2**16
"""Bytes of a configuration, parts of it that lie in one another, all, characters of one of them."""


def read_config(path: Path) -> Any:
    """Read a YAML file as plain values; what refers to other places of it stays text.

    Raises FileNotFoundError or ValueError that names the file.
    """
    check_file(path, MAX_CONFIG_BYTES)
    with wrap_read_errors(path, "configuration"):
        text = path.read_text(encoding="utf-8")
        _check_events(text)
        return OmegaConf.to_container(OmegaConf.create(text))


def _check_events(text: str) -> None:
    """Raise ValueError for aliases, of which a few stand for any number of values, or depth."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR_CHARS:
            raise ValueError(f"it has a value of {len(event.value):,} characters")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it repeats its parts by aliases")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if number > MAX_YAML_EVENTS:
            raise ValueError(f"it has more than {MAX_YAML_EVENTS:,} parts")
        if depth > MAX_NESTING:
            raise ValueError(f"more than {MAX_NESTING} of its parts lie in one another")


def get_nested(config: Any, *names: str) -> Any:
    """Return what lies in a configuration below some names, None where there is no such part."""
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config


def instantiate_allowed(node: Any, allowed: Collection[str], path: Path, hint: str) -> Any:
    """Build what a part of a configuration describes, where all that it names is known.

    Raises ValueError that names the file, what it wants to build, and what to do instead.
    """
    asked = [*_asked(node)]
    if unknown := [name for name in asked if name not in allowed]:
        raise ValueError(f"{path}: wants to build {unknown[0]!r}, nothing was: {hint}")
    if not asked:
        raise ValueError(f"{path}: tells nothing to build: {hint}")
    with wrap_read_errors(path, "configuration"):
        return instantiate(OmegaConf.create(node), _convert_="all")


def _asked(part: Any) -> Iterator[str]:
    """List all that a part would build, however deep; what may become anything is listed too.

    So are other words of Hydra's own: arguments without names pass by what looks at names.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "_target_":
                yield str(value)
            elif str(key).startswith("_"):
                yield str(key)
            else:
                yield from _asked(value)
    elif isinstance(part, list):
        for value in part:
            yield from _asked(value)
    elif isinstance(part, str) and "${" in part:
        yield part
