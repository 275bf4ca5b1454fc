"""Create open_clip models by name and weights."""

from pathlib import Path
from typing import Any

import open_clip

from recon.teachers.base import load_teacher_network


def create_clip(name: str, weights: str | None) -> Any:
    """Create an open_clip model; `weights` is a pretraining tag, a local file, or None (untrained).

    Raises ValueError for an unknown name, or for weights that are neither a file nor a tag that
    open_clip knows, and OSError if the weights are unavailable.
    """
    is_hosted = ":" in name
    if not is_hosted and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name!r}: see open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is not None and weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"{weights!r} is neither a local file nor one of {name}'s weights: {', '.join(tags)}"
        )
    return load_teacher_network(
        name, weights, lambda: open_clip.create_model(name, pretrained=weights)
    )
