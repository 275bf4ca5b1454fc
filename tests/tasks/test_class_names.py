"""Networks, checkpoints and data must have the same classes in the same order."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recon.checkpoints.hub import summarize_network
from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.reader import METADATA_KEY
from recon.data.datasets.furniture_parts import FurnitureParts
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter
from recon.tasks.class_names import check_checkpoint_classes, check_data_classes


class Parts(FurnitureParts):
    """Two classes of shapes with three parts."""

    point_classes = ("nut/thread", "nut/head", "bolt/shaft")
    classes = ("nut", "bolt")

    def __init__(self) -> None: ...


def build(**names: Any) -> Segmenter:
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    return Segmenter(
        PatchGrouper(8, 8), encoder, 3, num_objects=2, hidden=16, widths=(16, 16, 8), **names
    )


def build_own(order: int = 1) -> Segmenter:
    names = {"class_names": Parts.point_classes[::order], "object_names": Parts.classes[::order]}
    return build(**names, parts={"nut": [0, 1], "bolt": [2]})


def test_the_same_classes_and_networks_without_names_are_accepted() -> None:
    check_data_classes(build_own(), Parts())
    check_data_classes(build(), Parts())
    check_checkpoint_classes(build_own(), {METADATA_KEY: build_metadata(build_own())})
    check_checkpoint_classes(build_own(), {METADATA_KEY: build_metadata(build())})


def test_another_order_of_classes_is_refused() -> None:
    match = "checkpoint has the classes bolt/shaft, nut/head, nut/thread, the data have nut/thread"
    with pytest.raises(ValueError, match=match):
        check_data_classes(build_own(-1), Parts())
    with pytest.raises(ValueError, match=match):
        check_checkpoint_classes(build_own(), {METADATA_KEY: build_metadata(build_own(-1))})
    swapped = build(class_names=Parts.point_classes, object_names=("bolt", "nut"))
    with pytest.raises(ValueError, match="the object classes bolt, nut, the data have nut, bolt"):
        check_data_classes(swapped, Parts())


def test_names_of_ones_own_survive_saving_and_loading(tmp_path: Path) -> None:
    model = build_own()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    path = tmp_path / "own.ckpt"
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, path)
    loaded = load(path, task="part_segment")
    assert loaded.class_names == Parts.point_classes
    assert loaded.object_names == Parts.classes
    assert loaded.parts == {"nut": [0, 1], "bolt": [2]}
    summary = summarize_network(loaded)
    assert summary["classes"] == "3: nut/thread, nut/head, bolt/shaft"
    assert summary["object classes"] == "2: nut, bolt"
