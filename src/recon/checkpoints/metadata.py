"""What a file tells of its network beside the weights, held against what it can mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.checkpoints.factory import Network
from recon.models.classifier import Classifier
from recon.models.segmenter import Segmenter
from recon.utils.printable import has_control_chars

MAX_METADATA_COUNT = 2**20
"""Heads, groups or points of a group that a network may have."""


def check_metadata(path: Path, metadata: Any) -> dict[str, Any]:
    """Return what a file tells of its network; raise ValueError for what it cannot mean."""
    if not isinstance(metadata, Mapping):
        raise ValueError(
            f"{path}: describes its network by a {type(metadata).__name__}, not by names"
        )
    for name, value in metadata.items():
        count = name in ("num_heads", "num_groups", "group_size")
        flag = name in ("skip_near_origin", "stop_gradient")
        named = name in ("classes", "objects")
        wrong = (
            (count and (type(value) is not int or not 1 <= value <= MAX_METADATA_COUNT))
            or (flag and type(value) is not bool)
            or (named and not _are_names(value))
            or (name == "parts" and not _are_parts(value))
            or (name == "up" and value not in ("x", "y", "z"))
        )
        if wrong:
            raise ValueError(f"{path}: describes its network by {name}={value!a:.500}")
    return dict(metadata)


def _are_names(value: Any) -> bool:
    known = isinstance(value, list) and all(type(name) is str for name in value)
    return known and len({*value}) == len(value) and not any(map(has_control_chars, value))


def _are_parts(value: Any) -> bool:
    """Tell whether a value lists numbers of classes by names of objects."""
    rows = [*value.values()] if isinstance(value, dict) and _are_names([*value]) else [None]
    return all(isinstance(own, list) and all(type(n) is int for n in own) for own in rows)


def check_class_counts(path: Path, network: Network) -> None:
    """Raise ValueError where a file names more or fewer classes than its network has."""
    if not isinstance(network, Classifier | Segmenter):
        return
    pairs = [("classes", network.class_names, network.num_classes)]
    if isinstance(network, Segmenter):
        pairs += [("objects", network.object_names, network.num_objects or 0)]
        if any(not 0 <= n < network.num_classes for own in network.parts.values() for n in own):
            raise ValueError(
                f"{path}: gives objects parts beyond its {network.num_classes} classes"
            )
    for what, names, count in pairs:
        if names and len(names) != count:
            raise ValueError(f"{path}: names {len(names)} {what}, its network has {count}")
