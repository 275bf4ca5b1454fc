"""Metadata of a network: values that it cannot have are refused by name."""

from pathlib import Path
from typing import Any

import pytest

from recon.checkpoints import metadata as metadata_module
from recon.checkpoints.metadata import check_class_counts, check_metadata
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter

PATH = Path("x.ckpt")
SOUND: dict[str, Any] = {
    "num_heads": 3,
    "group_size": 32,
    "skip_near_origin": True,
    "classes": ["chair", "table"],
    "parts": {"chair": [0, 1]},
    "up": "y",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_heads", "3"), ("num_heads", True), ("num_groups", 0), ("group_size", 1.5),
        ("stop_gradient", 1), ("skip_near_origin", "yes"),
        ("classes", "chair"), ("classes", ["chair", 1]), ("classes", ["chair", "chair"]),
        ("objects", ["chair\n"]),
        ("parts", [[0]]), ("parts", {"chair": 0}), ("parts", {"chair": [0.5]}), ("parts", {1: [0]}),
        ("up", "w"), ("up", 1),
    ],
)  # fmt: skip
def test_invalid_metadata_are_named(name: str, value: object) -> None:
    assert check_metadata(PATH, SOUND) == SOUND
    with pytest.raises(ValueError, match=rf"^x\.ckpt: .*\b{name}=") as caught:
        check_metadata(PATH, SOUND | {name: value})
    assert str(caught.value).isprintable()


def test_metadata_have_limited_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_module, "MAX_METADATA_COUNT", 32)
    assert check_metadata(PATH, SOUND) == SOUND
    with pytest.raises(ValueError, match=r"^x\.ckpt: .*group_size=33"):
        check_metadata(PATH, SOUND | {"group_size": 33})
    with pytest.raises(ValueError, match=r"^x\.ckpt: ") as caught:
        check_metadata(PATH, {"up": "x" * 9999})
    assert len(str(caught.value)) < 600
    with pytest.raises(ValueError, match=r"^x\.ckpt: .*list"):
        check_metadata(PATH, [1])


def test_names_are_as_many_as_the_network_has() -> None:
    grouper = PatchGrouper(8, 8)
    encoder = Encoder(16, depth=1, heads=2)
    check_class_counts(PATH, Classifier(grouper, encoder, 3, class_names=("a", "b", "c")))
    check_class_counts(PATH, Classifier(grouper, encoder, 3))
    network = Segmenter(grouper, encoder, 4, num_objects=2)
    check_class_counts(PATH, network)
    network.class_names = ("a", "b")
    with pytest.raises(ValueError, match=r"^x\.ckpt: .*2 classes.* 4"):
        check_class_counts(PATH, network)
    network.class_names, network.parts = (), {"chair": (0, 4)}
    with pytest.raises(ValueError, match=r"^x\.ckpt: .*parts"):
        check_class_counts(PATH, network)
    network.parts, network.object_names = {}, ("chair",)
    with pytest.raises(ValueError, match=r"^x\.ckpt: .*1 objects.* 2"):
        check_class_counts(PATH, network)
