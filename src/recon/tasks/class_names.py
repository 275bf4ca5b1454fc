"""Check that a network, a checkpoint and data have the same classes in the same order."""

from collections.abc import Mapping, Sequence
from typing import Any

from recon.checkpoints.reader import METADATA_KEY
from recon.data.dataset import PointCloudDataset
from recon.models.classifier import Classifier
from recon.models.segmenter import Segmenter
from recon.utils.printable import join_names

MAX_SHOWN_NAMES = 12


def check_checkpoint_classes(model: Classifier | Segmenter, checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError if a checkpoint has other classes than the network that loads it."""
    metadata = checkpoint.get(METADATA_KEY, {})
    _check_same("classes", metadata.get("classes", ()), model.class_names)
    if isinstance(model, Segmenter):
        _check_same("object classes", metadata.get("objects", ()), model.object_names)


def check_data_classes(model: Classifier | Segmenter, dataset: PointCloudDataset) -> None:
    """Raise ValueError if data have other classes than the network that is tested on them."""
    names = dataset.point_classes if isinstance(model, Segmenter) else dataset.classes
    _check_same("classes", model.class_names, names)
    if isinstance(model, Segmenter):
        _check_same("object classes", model.object_names, dataset.classes)


def _check_same(kind: str, stored: Sequence[str], found: Sequence[str]) -> None:
    """Compare the names of a checkpoint with those of the data, where both have names."""
    if stored and found and list(stored) != list(found):
        shown, other = (join_names(names, MAX_SHOWN_NAMES) for names in (stored, found))
        raise ValueError(
            f"the checkpoint has the {kind} {shown}, the data have {other}: use data with the "
            "classes of the checkpoint in this order (data.classes=[...]), or another checkpoint"
        )
