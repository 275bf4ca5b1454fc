"""Written weights load back exactly; networks without a released form are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import released_json, released_path
from recon.checkpoints.loading import build_metadata, load, read_task
from recon.checkpoints.locate import CONFIG_FILENAME, WEIGHTS_FILENAME
from recon.checkpoints.writer import (
    build_official_state_dict,
    write_official_checkpoint,
    write_pretrained_folder,
)
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections, ReCon
from recon.models.segmenter import Segmenter

SETTINGS = {"num_heads": 3, "num_groups": 32}
RELEASED = (
    "recon_pretrain_small.pth",
    "twotower_pretrain_small.pth",
    "recon_cls_small.pth",
    "recon_cls_small_linear.pth",
    "recon_seg_small.pth",
)


def read_weights(path: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint.get("base_model", checkpoint.get("model_state_dict", checkpoint))


def assert_same_bytes(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert actual[name].shape == value.shape, name
        assert actual[name].numpy().tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize("name", RELEASED)
def test_official_files_round_trip_byte_by_byte(name: str, tmp_path: Path) -> None:
    source = released_path(name)
    network = load(source, task=read_task(source), **SETTINGS)
    write_pretrained_folder(network, tmp_path / "ours", {})
    saved = load(tmp_path / "ours", task=read_task(tmp_path / "ours"))
    write_official_checkpoint(saved, tmp_path / "back.pth", epoch=7)
    checkpoint = torch.load(tmp_path / "back.pth", weights_only=True)
    weights_key = "model_state_dict" if "seg" in name else "base_model"
    assert set(checkpoint) == {weights_key, "epoch", "metrics", "best_metrics"}
    assert checkpoint["epoch"] == 7
    assert_same_bytes(checkpoint[weights_key], read_weights(source))


def test_base_networks_have_all_released_names_and_shapes() -> None:
    expected = released_json("recon_base_keys.json")["pretrain_base"]
    with torch.device("meta"):
        network = ReCon(
            PatchGrouper(64, 32),
            Encoder(),
            Decoder(),
            Projections(384, {"image": 768, "text": 512}),
        )
        shapes = {
            name: list(tensor.shape) for name, tensor in build_official_state_dict(network).items()
        }
    assert shapes == {**expected["params"], **expected["buffers"]}


@pytest.mark.parametrize("name", RELEASED)
def test_saved_folders_load_the_same_network(name: str, tmp_path: Path) -> None:
    source = released_path(name)
    network = load(source, task=read_task(source), **SETTINGS)
    write_pretrained_folder(network, tmp_path, {"name": "x"})
    for path in (tmp_path, tmp_path / WEIGHTS_FILENAME):
        loaded = load(path, task=read_task(path))
        assert type(loaded) is type(network)
        assert build_metadata(loaded) == build_metadata(network)
        assert_same_bytes(loaded.state_dict(), network.state_dict())


SIZES: dict[str, Any] = {"depth": 1, "heads": 2}


def test_networks_without_a_released_form_raise_value_error(tmp_path: Path) -> None:
    grouper, decoder = PatchGrouper(8, 8), Decoder(16, depth=1, heads=2, group_size=8)
    widths = {"image": 4, "text": 5}
    networks = {
        "no ContrastiveNetwork without a decoder": ContrastiveNetwork(
            grouper, Encoder(16, **SIZES), Projections(16, widths)
        ),
        "its encoder has the queries cls, image, text, this one": ReCon(
            grouper, Encoder(16, **SIZES, queries=()), decoder, Projections(16, {})
        ),
        "it projects image and text, this one .'text'.": ReCon(
            grouper, Encoder(16, **SIZES), decoder, Projections(16, {"text": 5})
        ),
        r"by layers \(128, 256, 512\) wide, these by \(8, 16, 24\)": ReCon(
            grouper,
            Encoder(16, **SIZES, patch_widths=(8, 16, 24)),
            decoder,
            Projections(16, widths),
        ),
        "it does not rotate clouds, this network has the up axis z": Segmenter(
            grouper, Encoder(16, **SIZES), 4, up="z"
        ),
        "its layers on points are": Segmenter(grouper, Encoder(16, **SIZES), 4, widths=(9, 8, 7)),
    }
    for reason, network in networks.items():
        message = f"cannot be written in the released format: .*{reason}"
        with pytest.raises(ValueError, match=message):
            write_official_checkpoint(network, tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_class_names_are_saved(tmp_path: Path) -> None:
    names = ("chair", "table", "Ääkkönen")
    network = Classifier(PatchGrouper(8, 8), Encoder(16, **SIZES), 3, class_names=names)
    write_pretrained_folder(network, tmp_path, {})
    assert load(tmp_path, task="classify").class_names == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "it has no `network`"),
        ('{"network": 3}', "it has no `network`"),
        ('{"network": {"num_heads": "six"}}', "invalid metadata num_heads='six'"),
        ('{"network": {"num_groups": -1}}', "invalid metadata num_groups=-1"),
        ('{"network": {"stop_gradient": 1}}', "invalid metadata stop_gradient=1"),
        ('{"network": {"classes": [1]}}', r"invalid metadata classes=\[1\]"),
        ('{"network": {"parts": []}}', r"invalid metadata parts=\[\]"),
        ('{"network": {"num_heads": 3}}', "the file lacks num_groups"),
    ],
)
def test_invalid_configurations_raise_value_error(
    content: str, message: str, tmp_path: Path
) -> None:
    network = load(released_path("recon_pretrain_small.pth"), **SETTINGS)
    write_pretrained_folder(network, tmp_path, {})
    (tmp_path / CONFIG_FILENAME).write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_damaged_weights_raise_errors_with_their_name(tmp_path: Path) -> None:
    network = load(released_path("recon_pretrain_small.pth"), **SETTINGS)
    write_pretrained_folder(network, tmp_path, {})
    content = (tmp_path / WEIGHTS_FILENAME).read_bytes()
    for damaged in (content[:1000], b"", b"\x80\x04." + content[3:], content[:-10]):
        (tmp_path / WEIGHTS_FILENAME).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors: corrupt .*fetch it again"):
            load(tmp_path)
    (tmp_path / WEIGHTS_FILENAME).unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: missing: config.json and"):
        load(tmp_path)
    (tmp_path / WEIGHTS_FILENAME).write_bytes(content)
    config = json.loads((tmp_path / CONFIG_FILENAME).read_text())
    config["network"]["num_heads"] = 5
    (tmp_path / CONFIG_FILENAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="width 96 is not a multiple"):
        load(tmp_path)
