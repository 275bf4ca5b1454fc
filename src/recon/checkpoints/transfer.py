"""Build a classifier or a segmenter on the encoder of a pretrained network."""

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


def _select_encoder_weights(
    weights: CheckpointWeights, encoder: Encoder | TwoTowerEncoder
) -> dict[str, Tensor]:
    """Select the encoder's weights of a network and rename them as in the encoder."""
    if weights.has_prefix("tower.") or weights.has_prefix("encoder.query_"):
        raise ValueError(
            f"{weights.path}: contains a standard transformer, as in Point-MAE and ACT, which this "
            "network's blocks do not compute: choose a checkpoint of ReCon"
        )
    has_two_towers = weights.has_prefix("generative.")
    prefixes = ("generative.", "contrastive.") if has_two_towers else ("encoder.",)
    if isinstance(encoder, TwoTowerEncoder) != (
        has_two_towers or weights.has_prefix("encoder.generative.")
    ):
        kind = "two towers" if has_two_towers else "one encoder"
        raise ValueError(f"{weights.path}: contains {kind}: choose the matching student")
    removed_prefix = "" if has_two_towers else "encoder."
    state = weights.state_dict.items()
    return {k.removeprefix(removed_prefix): v for k, v in state if k.startswith(prefixes)}


def load_pretrained_encoder(
    checkpoint: str | Path, encoder: Encoder | TwoTowerEncoder
) -> list[str]:
    """Load the encoder of a pretrained network; return the names of weights that the file lacks.

    A generative student has no queries: those of `encoder` keep their random initialization.
    Raises ValueError if the file's encoder has another width, depth or number of heads.
    """
    path = locate_checkpoint(checkpoint)
    contents = read_checkpoint(path)
    weights = extract_weights(path, contents)
    encoder_weights = CheckpointWeights(
        Path(checkpoint), _select_encoder_weights(weights, encoder), has_official_keys=False
    )
    state = encoder_weights.state_dict
    trunk_prefix = _get_trunk_prefix(encoder)
    heads = encoder.get_submodule(f"{trunk_prefix}blocks.0.attn").heads
    file_heads = contents.get(METADATA_KEY, {}).get("num_heads", heads)
    mismatches = find_mismatches(encoder.state_dict(), encoder_weights)
    missing_queries = [
        name for name in mismatches.pop("missing", []) if name.startswith("queries.")
    ]
    missing = [n for n in encoder.state_dict() if n not in state and n not in missing_queries]
    if mismatches or missing or file_heads != heads:
        width = encoder_weights.out_features(f"{trunk_prefix}norm")
        raise ValueError(
            f"{checkpoint}: its encoder is {width} wide with {file_heads} heads, the network "
            f"{encoder.dim} with {heads}: set the model options of its pretraining, see "
            f"config.yaml of that run ({len(missing)} weights missing, "
            f"{sum(map(len, mismatches.values()))} that do not fit)"
        )
    encoder.load_state_dict(state, strict=not missing_queries)
    return missing_queries


def _get_trunk_prefix(encoder: Encoder | TwoTowerEncoder) -> str:
    return "generative." if isinstance(encoder, TwoTowerEncoder) else ""


def _initialize_encoder(checkpoint: str | Path, encoder: Encoder | TwoTowerEncoder) -> None:
    if missing_queries := load_pretrained_encoder(checkpoint, encoder):
        warnings.warn(
            f"{checkpoint}: has no queries: their {len(missing_queries)} weights "
            "are initialized randomly",
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
    """Build a classifier from scratch, or with the encoder weights of a pretrained checkpoint."""
    model = Classifier(grouper, encoder, num_classes, head=head)
    if checkpoint is not None:
        _initialize_encoder(checkpoint, encoder)
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
    """Build a segmenter from scratch, or with the encoder weights of a pretrained checkpoint.

    `num_objects` is the number of object classes; None or 0 for scenes, which have none. `layers`
    are further arguments of `Segmenter`.
    """
    model = Segmenter(grouper, encoder, num_classes, num_objects=num_objects or None, **layers)
    if checkpoint is not None:
        _initialize_encoder(checkpoint, encoder)
    return model
