"""Weights out: exact round trips, and what the released implementation has no place for."""

import json
from pathlib import Path

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

TOLD = {"num_heads": 3, "num_groups": 32}
RELEASED = (
    "recon_pretrain_small.pth",
    "twotower_pretrain_small.pth",
    "recon_cls_small.pth",
    "recon_cls_small_linear.pth",
    "recon_seg_small.pth",
)


def weights(path: Path) -> dict[str, Tensor]:
    held = torch.load(path, weights_only=True)
    return held.get("base_model", held.get("model_state_dict", held))


def same_bytes(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert ours[name].shape == value.shape, name
        assert ours[name].numpy().tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize("name", RELEASED)
def test_official_files_come_back_byte_by_byte(name: str, tmp_path: Path) -> None:
    source = released_path(name)
    network = load(source, task=read_task(source), **TOLD)
    write_pretrained_folder(network, tmp_path / "ours", {})
    again = load(tmp_path / "ours", task=read_task(tmp_path / "ours"))
    write_official_checkpoint(again, tmp_path / "back.pth", epoch=7)
    held = torch.load(tmp_path / "back.pth", weights_only=True)
    read_by_released = "model_state_dict" if "seg" in name else "base_model"
    assert set(held) == {read_by_released, "epoch", "metrics", "best_metrics"}
    assert held["epoch"] == 7
    same_bytes(held[read_by_released], weights(source))


def test_base_networks_get_all_the_released_names_and_shapes() -> None:
    expected = released_json("recon_base_keys.json")["pretrain_base"]
    with torch.device("meta"):
        network = ReCon(
            PatchGrouper(64, 32),
            Encoder(),
            Decoder(),
            Projections(384, {"image": 768, "text": 512}),
        )
        found = {
            name: list(tensor.shape) for name, tensor in build_official_state_dict(network).items()
        }
    assert found == {**expected["params"], **expected["buffers"]}


@pytest.mark.parametrize("name", RELEASED)
def test_saved_folders_give_the_same_network(name: str, tmp_path: Path) -> None:
    source = released_path(name)
    network = load(source, task=read_task(source), **TOLD)
    write_pretrained_folder(network, tmp_path, {"name": "x"})
    for place in (tmp_path, tmp_path / WEIGHTS_FILENAME):
        again = load(place, task=read_task(place))
        assert type(again) is type(network)
        assert build_metadata(again) == build_metadata(network)
        same_bytes(again.state_dict(), network.state_dict())


def sizes(**more: object) -> dict[str, object]:
    return {"depth": 1, "heads": 2, **more}


def test_what_the_released_code_lacks_is_refused_by_name(tmp_path: Path) -> None:
    grouper, decoder = PatchGrouper(8, 8), Decoder(16, depth=1, heads=2, group_size=8)
    both = {"image": 4, "text": 5}
    narrow = {"patch_widths": (8, 16, 24)}
    refused = {
        "no ContrastiveNetwork without a decoder": ContrastiveNetwork(
            grouper, Encoder(16, **sizes()), Projections(16, both)
        ),
        "its encoder has the queries cls, image, text, this one": ReCon(
            grouper, Encoder(16, **sizes(queries=())), decoder, Projections(16, {})
        ),
        "it projects image and text, this one .'text'.": ReCon(
            grouper, Encoder(16, **sizes()), decoder, Projections(16, {"text": 5})
        ),
        r"by layers \(128, 256, 512\) wide, these by \(8, 16, 24\)": ReCon(
            grouper, Encoder(16, **sizes(**narrow)), decoder, Projections(16, both)
        ),
        "it does not turn clouds, this network turns z upwards": Segmenter(
            grouper, Encoder(16, **sizes()), 4, up="z"
        ),
        "its layers on points are": Segmenter(grouper, Encoder(16, **sizes()), 4, widths=(9, 8, 7)),
    }
    for why, network in refused.items():
        with pytest.raises(ValueError, match=f"cannot be written in the released format: .*{why}"):
            write_official_checkpoint(network, tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_names_of_classes_come_along(tmp_path: Path) -> None:
    names = ("chair", "table", "Ääkkönen")
    network = Classifier(PatchGrouper(8, 8), Encoder(16, **sizes()), 3, class_names=names)
    write_pretrained_folder(network, tmp_path, {})
    assert load(tmp_path, task="classify").class_names == names


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "describes no `network`"),
        ('{"network": 3}', "describes no `network`"),
        ('{"network": {"num_heads": "six"}}', "describes its network by num_heads='six'"),
        ('{"network": {"num_groups": -1}}', "describes its network by num_groups=-1"),
        ('{"network": {"stop_gradient": 1}}', "describes its network by stop_gradient=1"),
        ('{"network": {"classes": [1]}}', r"describes its network by classes=\[1\]"),
        ('{"network": {"parts": []}}', r"describes its network by parts=\[\]"),
        ('{"network": {"num_heads": 3}}', "do not tell num_groups"),
    ],
)
def test_broken_configurations_are_named(content: str, why: str, tmp_path: Path) -> None:
    network = load(released_path("recon_pretrain_small.pth"), **TOLD)
    write_pretrained_folder(network, tmp_path, {})
    (tmp_path / CONFIG_FILENAME).write_text(content)
    with pytest.raises(ValueError, match=why):
        load(tmp_path)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    network = load(released_path("recon_pretrain_small.pth"), **TOLD)
    write_pretrained_folder(network, tmp_path, {})
    whole = (tmp_path / WEIGHTS_FILENAME).read_bytes()
    for broken in (whole[:1000], b"", b"\x80\x04." + whole[3:], whole[:-10]):
        (tmp_path / WEIGHTS_FILENAME).write_bytes(broken)
        with pytest.raises(ValueError, match=r"model.safetensors: corrupt .*fetch it again"):
            load(tmp_path)
    (tmp_path / WEIGHTS_FILENAME).unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: missing: config.json and"):
        load(tmp_path)
    (tmp_path / WEIGHTS_FILENAME).write_bytes(whole)
    config = json.loads((tmp_path / CONFIG_FILENAME).read_text())
    config["network"]["num_heads"] = 5
    (tmp_path / CONFIG_FILENAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="width 96 is not a multiple"):
        load(tmp_path)
