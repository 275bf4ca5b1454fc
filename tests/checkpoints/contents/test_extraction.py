"""Weights of other programs are loaded as from the released file, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conftest import released_path
from recon.checkpoints.loading import load, read_task
from recon.checkpoints.provenance import read_provenance
from recon.checkpoints.reader import extract_weights, read_checkpoint
from recon.checkpoints.transfer import load_pretrained_encoder
from recon.models.encoder import Encoder
from recon.models.recon import PretrainingNetwork

SETTINGS = {"num_heads": 4, "num_groups": 16}


@pytest.fixture(scope="module")
def network() -> PretrainingNetwork:
    return load(released_path("recon_pretrain_small.pth"), **SETTINGS)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return torch.load(released_path("recon_pretrain_small.pth"), weights_only=True)["base_model"]


def read_weights(path: Path) -> dict[str, Tensor]:
    return extract_weights(path, read_checkpoint(path)).state_dict


def assert_equal(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def encode(network: PretrainingNetwork) -> Tensor:
    points = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    return network.encode(points).pooled()


def test_wrapped_weights_are_those_of_the_released_file(
    network: PretrainingNetwork, state: dict[str, Tensor], tmp_path: Path
) -> None:
    own, path = network.state_dict(), tmp_path / "x.pth"
    contents: list[Any] = [
        {"state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}},
        {"state_dict": {f"model.{name}": value for name, value in own.items()}},
        own,
    ]
    for content in contents:
        torch.save(content, path)
        assert_equal(read_weights(path), own)
    assert read_provenance(path)["format"].startswith("weights by the names of this library")
    for number, weights in enumerate((state, own)):
        path = tmp_path / f"{number}.safetensors"
        save_file({name: value.clone() for name, value in weights.items()}, path)
        assert_equal(read_weights(path), own)


def test_an_encoder_alone_gives_the_features_of_its_network(
    network: PretrainingNetwork, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path, own = tmp_path / "x.pth", "MAE_encoder."
    encoder = {name.removeprefix(own): v for name, v in state.items() if name.startswith(own)}
    expected = {f"encoder.{name}": value for name, value in network.encoder.state_dict().items()}
    for prefix in ("", own, "backbone."):
        torch.save({"net": {prefix + name: value for name, value in encoder.items()}}, path)
        assert_equal(read_weights(path), expected)
    assert read_task(path) == "pretrain"
    assert torch.equal(encode(load(path, **SETTINGS)), encode(network))
    target = Encoder(96, depth=len(network.encoder.blocks), heads=4)
    assert load_pretrained_encoder(path, target) == []
    assert torch.equal(target.norm.weight, state["MAE_encoder.norm.weight"])


def test_an_encoder_of_this_library_is_known_by_its_queries(
    network: PretrainingNetwork, tmp_path: Path
) -> None:
    weights = network.encoder.state_dict()
    torch.save(weights, tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth", group_size=32, **SETTINGS)
    assert torch.equal(encode(loaded), encode(network))
    bare = {name: value for name, value in weights.items() if not name.startswith("queries.")}
    torch.save(bare, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: an encoder without queries may be .* save the"):
        load(tmp_path / "x.pth", group_size=32, **SETTINGS)


def test_messages_name_the_keys_that_hold_tensors(tmp_path: Path) -> None:
    path, weights = tmp_path / "x.pth", {"conv.weight": torch.zeros(3)}
    for content, message in (
        ({"state_dict": weights}, r"is in state_dict \(1 tensors, such as conv\.weight\)"),
        ({"a": {"b": weights}, "epoch": 1}, r"only \['a', 'epoch'\]; tensors are in a\.b \(1 ten"),
        (weights, r"is in the file itself \(1 tensors"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load(path, **SETTINGS)
