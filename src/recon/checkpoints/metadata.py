"""Check a checkpoint's metadata: attention heads, patches, class names, parts, up axis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.checkpoints.factory import Network
from recon.models.classifier import Classifier
from recon.models.segmenter import Segmenter
from recon.utils.printable import has_control_chars

MAX_METADATA_COUNT = 2**20
"""Maximum number of heads, of patches, and of points in a patch."""


def check_metadata(path: Path, metadata: Any) -> dict[str, Any]:
    """Return a checkpoint's metadata; raise ValueError for values that no network can have."""
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{path}: its metadata is a {type(metadata).__name__}, not a mapping")
    for name, value in metadata.items():
        is_count = name in ("num_heads", "num_groups", "group_size")
        is_flag = name in ("skip_near_origin", "stop_gradient")
        is_name_list = name in ("classes", "objects")
        invalid = (
            (is_count and (type(value) is not int or not 1 <= value <= MAX_METADATA_COUNT))
            or (is_flag and type(value) is not bool)
            or (is_name_list and not _is_name_list(value))
            or (name == "parts" and not _is_parts_table(value))
            or (name == "up" and value not in ("x", "y", "z"))
        )
        if invalid:
            raise ValueError(f"{path}: invalid metadata {name}={value!a:.500}")
    return dict(metadata)


def _is_name_list(value: Any) -> bool:
    """Tell whether a value is a list of different printable names."""
    is_text = isinstance(value, list) and all(type(name) is str for name in value)
    return is_text and len({*value}) == len(value) and not any(map(has_control_chars, value))


def _is_parts_table(value: Any) -> bool:
    """Tell whether a value maps names of objects to lists of class numbers."""
    is_table = isinstance(value, dict) and _is_name_list([*value])
    part_lists = [*value.values()] if is_table else [None]
    return all(isinstance(ids, list) and all(type(n) is int for n in ids) for ids in part_lists)


def check_class_counts(path: Path, network: Network) -> None:
    """Raise ValueError if the metadata and the network have different numbers of classes."""
    if not isinstance(network, Classifier | Segmenter):
        return
    pairs = [("classes", network.class_names, network.num_classes)]
    if isinstance(network, Segmenter):
        pairs += [("objects", network.object_names, network.num_objects or 0)]
        if any(not 0 <= n < network.num_classes for ids in network.parts.values() for n in ids):
            raise ValueError(
                f"{path}: its metadata assigns parts to objects that are none of its "
                f"{network.num_classes} classes"
            )
    for kind, names, count in pairs:
        if names and len(names) != count:
            raise ValueError(f"{path}: names {len(names)} {kind}, its network has {count}")
