"""Start a classifier from the encoder of a pretrained network."""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from recon.checkpoints.loading import find_mismatches
from recon.checkpoints.locate import locate_checkpoint
from recon.checkpoints.reader import (
    METADATA_KEY,
    CheckpointWeights,
    extract_weights,
    read_checkpoint,
)
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier, HeadFactory
from recon.models.encoder import Encoder
from recon.models.heads import mlp_head
from recon.models.segmenter import Segmenter
from recon.models.two_tower import TwoTowerEncoder


def _encoder_weights(
    weights: CheckpointWeights, encoder: Encoder | TwoTowerEncoder
) -> dict[str, Tensor]:
    """Pick the encoder's weights out of a network's, by the encoder's own names."""
    if weights.has_prefix("tower.") or weights.has_prefix("encoder.query_"):
        raise ValueError(
            f"{weights.path}: an ordinary transformer, as Point-MAE's and ACT's are: the blocks "
            "of this network would compute something else with its weights"
        )
    prefixes = (
        ("generative.", "contrastive.") if weights.has_prefix("generative.") else ("encoder.",)
    )
    if isinstance(encoder, TwoTowerEncoder) != (
        len(prefixes) == 2 or weights.has_prefix("encoder.generative.")
    ):
        kind = "two towers" if len(prefixes) == 2 else "one encoder"
        raise ValueError(f"{weights.path}: holds {kind}: choose the student that fits it")
    keep = "" if len(prefixes) == 2 else "encoder."
    state = weights.state_dict.items()
    return {k.removeprefix(keep): v for k, v in state if k.startswith(prefixes)}


def load_pretrained_encoder(
    checkpoint: str | Path, encoder: Encoder | TwoTowerEncoder
) -> list[str]:
    """Load the encoder of a pretrained network; return the names that its file does not have.

    Those are the queries of a generative student, which had none: they start fresh. Raises
    ValueError where the file's encoder has another width, depth or number of heads.
    """
    place = locate_checkpoint(checkpoint)
    contents = read_checkpoint(place)
    weights = extract_weights(place, contents)
    found = CheckpointWeights(
        Path(checkpoint), _encoder_weights(weights, encoder), has_official_keys=False
    )
    heads = encoder.get_submodule(f"{_inner(encoder)}blocks.0.attn").heads
    told = contents.get(METADATA_KEY, {}).get("num_heads", heads)
    wrong = find_mismatches(encoder.state_dict(), found)
    fresh = [name for name in wrong.pop("missing", []) if name.startswith("queries.")]
    lacking = [n for n in encoder.state_dict() if n not in found.state_dict and n not in fresh]
    if wrong or lacking or told != heads:
        width = found.out_features(f"{_inner(encoder)}norm")
        raise ValueError(
            f"{checkpoint}: its encoder is {width} wide with {told} heads, the network "
            f"{encoder.dim} "
            f"with {heads}: give the model's options of its pretraining, see config.yaml of its "
            f"run ({len(lacking)} weights missing, {sum(map(len, wrong.values()))} that do not fit)"
        )
    encoder.load_state_dict(found.state_dict, strict=not fresh)
    return fresh


def _inner(encoder: Encoder | TwoTowerEncoder) -> str:
    return "generative." if isinstance(encoder, TwoTowerEncoder) else ""


def _start(checkpoint: str | Path, encoder: Encoder | TwoTowerEncoder) -> None:
    if fresh := load_pretrained_encoder(checkpoint, encoder):
        warnings.warn(
            f"{checkpoint}: has no queries: {len(fresh)} weights of theirs start fresh",
            stacklevel=3,
        )


def build_classifier(
    grouper: PatchGrouper,
    encoder: Encoder | TwoTowerEncoder,
    num_classes: int,
    *,
    head: HeadFactory = mlp_head,
    checkpoint: str | Path | None = None,
) -> Classifier:
    """Put a head on an encoder, from scratch or with the weights of a pretrained one."""
    model = Classifier(grouper, encoder, num_classes, head=head)
    if checkpoint is not None:
        _start(checkpoint, encoder)
    return model


def build_segmenter(
    grouper: PatchGrouper,
    encoder: Encoder,
    num_classes: int,
    *,
    num_objects: int | None = None,
    checkpoint: str | Path | None = None,
    **layers: Any,
) -> Segmenter:
    """Put a head for points on an encoder, from scratch or with the weights of a pretrained one.

    `objects` is the number of classes of objects; none for scenes, None or 0. `layers` are further
    settings of `Segmenter`.
    """
    model = Segmenter(grouper, encoder, num_classes, num_objects=num_objects or None, **layers)
    if checkpoint is not None:
        _start(checkpoint, encoder)
    return model
