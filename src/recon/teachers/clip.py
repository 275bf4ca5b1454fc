"""Create open_clip models by name and weights."""

from pathlib import Path
from typing import Any

import open_clip

from recon.teachers.base import load_teacher_network


def create_clip(name: str, weights: str | None, *, option: str = "weights") -> Any:
    """Create an open_clip model; `weights` is a pretraining tag, a local file, or None (untrained).

    `option` is the name of the option that sets `weights`, for messages.

    Raises ValueError for an unknown name, or for weights that are neither a file nor a tag that
    open_clip knows, and OSError if the weights are unavailable.
    """
    is_hosted = ":" in name
    if not is_hosted and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name!r}: see open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is not None and weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"{weights!r} is neither a local file nor one of {name}'s weights: "
            f"{', '.join(tags) or 'it has none'}"
        )
    return load_teacher_network(
        name,
        weights,
        lambda: open_clip.create_model(name, pretrained=weights),
        option=option,
        needs_hub=is_hosted or weights in tags or _has_hub_text_tower(name),
    )


def load_tokenizer(name: str, *, option: str) -> Any:
    """Load the tokenizer of an open_clip model, which some models have on the Hugging Face Hub."""
    return load_teacher_network(
        name,
        None,
        lambda: open_clip.get_tokenizer(name),
        option=option,
        needs_hub=":" in name or _has_hub_text_tower(name),
    )


def _has_hub_text_tower(name: str) -> bool:
    """Tell whether a model takes its text tower or tokenizer from the Hugging Face Hub."""
    text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))
