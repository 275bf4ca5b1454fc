"""Start a classifier from the encoder of a pretrained network."""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from recon.checkpoints.loading import differences
from recon.checkpoints.locate import locate
from recon.checkpoints.reader import FORMAT_KEY, Weights, read_checkpoint, weights_in
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier, Head
from recon.models.encoder import Encoder
from recon.models.heads import mlp_head
from recon.models.segmenter import Segmenter
from recon.models.two_tower import Towers


def _encoder_weights(weights: Weights, encoder: Encoder | Towers) -> dict[str, Tensor]:
    """Pick the encoder's weights out of a network's, by the encoder's own names."""
    if weights.has("tower.") or weights.has("encoder.query_"):
        raise ValueError(
            f"{weights.path}: an ordinary transformer, as Point-MAE's and ACT's are: the blocks "
            "of this network would compute something else with its weights"
        )
    prefixes = ("generative.", "contrastive.") if weights.has("generative.") else ("encoder.",)
    if isinstance(encoder, Towers) != (len(prefixes) == 2 or weights.has("encoder.generative.")):
        kind = "two towers" if len(prefixes) == 2 else "one encoder"
        raise ValueError(f"{weights.path}: holds {kind}: choose the student that fits it")
    keep = "" if len(prefixes) == 2 else "encoder."
    state = weights.state.items()
    return {k.removeprefix(keep): v for k, v in state if k.startswith(prefixes)}


def start_from(path: str | Path, encoder: Encoder | Towers) -> list[str]:
    """Load the encoder of a pretrained network; return the names that its file does not have.

    Those are the queries of a generative student, which had none: they start fresh. Raises
    ValueError where the file's encoder has another width, depth or number of heads.
    """
    place = locate(path)
    checkpoint = read_checkpoint(place)
    weights = weights_in(place, checkpoint)
    found = Weights(Path(path), _encoder_weights(weights, encoder), official=False)
    heads = encoder.get_submodule(f"{_inner(encoder)}blocks.0.attn").heads
    told = checkpoint.get(FORMAT_KEY, {}).get("num_heads", heads)
    wrong = differences(encoder.state_dict(), found)
    fresh = [name for name in wrong.pop("missing", []) if name.startswith("queries.")]
    lacking = [n for n in encoder.state_dict() if n not in found.state and n not in fresh]
    if wrong or lacking or told != heads:
        width = found.width(f"{_inner(encoder)}norm")
        raise ValueError(
            f"{path}: its encoder is {width} wide with {told} heads, the network {encoder.dim} "
            f"with {heads}: give the model's options of its pretraining, see config.yaml of its "
            f"run ({len(lacking)} weights missing, {sum(map(len, wrong.values()))} that do not fit)"
        )
    encoder.load_state_dict(found.state, strict=not fresh)
    return fresh


def _inner(encoder: Encoder | Towers) -> str:
    return "generative." if isinstance(encoder, Towers) else ""


def _start(pretrained: str | Path, encoder: Encoder | Towers) -> None:
    if fresh := start_from(pretrained, encoder):
        warnings.warn(
            f"{pretrained}: has no queries: {len(fresh)} weights of theirs start fresh",
            stacklevel=3,
        )


def build_classifier(
    grouper: PatchGrouper,
    encoder: Encoder | Towers,
    classes: int,
    *,
    head: Head = mlp_head,
    pretrained: str | Path | None = None,
) -> Classifier:
    """Put a head on an encoder, from scratch or with the weights of a pretrained one."""
    model = Classifier(grouper, encoder, classes, head=head)
    if pretrained is not None:
        _start(pretrained, encoder)
    return model


def build_segmenter(
    grouper: PatchGrouper,
    encoder: Encoder,
    classes: int,
    *,
    objects: int | None = None,
    pretrained: str | Path | None = None,
    **layers: Any,
) -> Segmenter:
    """Put a head for points on an encoder, from scratch or with the weights of a pretrained one.

    `objects` is the number of classes of objects; none for scenes, None or 0. `layers` are further
    settings of `Segmenter`.
    """
    model = Segmenter(grouper, encoder, classes, objects=objects or None, **layers)
    if pretrained is not None:
        _start(pretrained, encoder)
    return model
