"""Models of open_clip, by name and weights."""

from pathlib import Path
from typing import Any

import open_clip

from recon.teachers.base import load_teacher_network


def create_clip(name: str, weights: str | None) -> Any:
    """Build a model of open_clip, its weights by pretraining tag, from a local file, or none.

    Raises ValueError for a name or tag that open_clip does not know and that is no file, and
    OSError where the weights cannot be had.
    """
    hosted = ":" in name
    if not hosted and name not in open_clip.list_models():
        raise ValueError(f"open_clip knows no model {name!r}: see open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is not None and weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"{weights!r} is neither a local file nor one of {name}'s weights: {', '.join(tags)}"
        )
    return load_teacher_network(
        name, weights, lambda: open_clip.create_model(name, pretrained=weights)
    )
