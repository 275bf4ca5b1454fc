"""Loading released files and checkpoints: sizes, keys, arguments and unreadable files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import released_json, released_path
from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.official_keys import from_official_state_dict, to_official_key
from recon.checkpoints.reader import METADATA_KEY
from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, PretrainingNetwork, Projections, ReCon
from recon.models.two_tower import Tower, TwoTowers

OFFICIAL = released_path("recon_pretrain_small.pth")
SIZES = {"base": (384, 6), "small": (256, 4), "tiny": (192, 3)}


def load_official_state() -> dict[str, torch.Tensor]:
    return torch.load(OFFICIAL, weights_only=True)["base_model"]


def test_sizes_are_read_from_the_weights() -> None:
    model = load(OFFICIAL, num_heads=3, num_groups=64)
    assert not model.training
    assert (len(model.encoder.blocks), len(model.decoder.blocks)) == (4, 2)
    assert model.grouper.group_size == 32
    assert model.projections.dims == {"cls": 128, "image": 512, "text": 512}


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_released_names_and_shapes(name: str) -> None:
    dim, heads = SIZES[name]
    projections = Projections(dim, {"image": 768, "text": 512})
    with torch.device("meta"):
        model = ReCon(
            PatchGrouper(64, 32), Encoder(dim, heads=heads), Decoder(dim, heads=heads), projections
        )
    expected = released_json("recon_base_keys.json")[f"pretrain_{name}"]
    released = {k: torch.empty(v, device="meta") for k, v in expected["params"].items()}
    assert {k: v.shape for k, v in model.named_parameters()} == {
        k: v.shape for k, v in from_official_state_dict(released).items()
    }
    assert sum(p.numel() for p in model.parameters()) == expected["n_params"]


def test_data_parallel_prefixes_are_ignored(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in load_official_state().items()}
    torch.save({"base_model": state, "metrics": {"acc": np.float64(0.5)}}, tmp_path / "x.pth")
    model = load(tmp_path / "x.pth", num_heads=3, num_groups=64)
    for name, value in load(OFFICIAL, num_heads=3, num_groups=64).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_frozen_teachers_in_a_file_are_ignored(tmp_path: Path) -> None:
    state = load_official_state() | {"img_encoder.model.weight": torch.zeros(3)}
    torch.save({"base_model": state}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth", num_heads=3, num_groups=64).training is False


def build_networks() -> dict[str, PretrainingNetwork]:
    sizes = {"depth": 2, "heads": 2, "patch_widths": (8, 16, 24)}
    grouper, widths = PatchGrouper(8, 6, skip_near_origin=True), {"image": 5, "text": 7}
    decoder = {"depth": 1, "heads": 2, "group_size": 6}
    return {
        "recon": ReCon(
            grouper, Encoder(16, **sizes), Decoder(16, **decoder), Projections(16, widths)
        ),
        "generative": ReCon(
            grouper, Encoder(16, queries=(), **sizes), Decoder(16, **decoder), Projections(16, {})
        ),
        "contrastive": ContrastiveNetwork(
            grouper, Encoder(16, **sizes), Projections(16, widths | {"cls": 4})
        ),
        "two_towers": TwoTowers(
            grouper,
            Tower(16, **sizes),
            Tower(16, queries=("image", "text"), **sizes),
            Decoder(16, **decoder),
            Projections(16, widths),
        ),
    }


@pytest.mark.parametrize("name", build_networks())
def test_every_network_is_restored_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    model = build_networks()[name].eval()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state["ensemble.losses.image.log_scale"] = torch.zeros(())  # belongs to the task
    torch.save({"state_dict": state, METADATA_KEY: build_metadata(model)}, tmp_path / "last.ckpt")
    loaded = load(tmp_path / "last.ckpt")
    assert type(loaded) is type(model)
    assert build_metadata(loaded) == build_metadata(model)
    points, mask = torch.randn(2, 40, 3), torch.tensor([True, False] * 4).expand(2, -1)
    actual, expected = loaded(points, mask), model(points, mask)
    assert torch.equal(actual.predicted, expected.predicted)
    assert actual.projected_queries.keys() == expected.projected_queries.keys()
    for key, value in actual.projected_queries.items():
        assert torch.equal(value, expected.projected_queries[key])


def test_missing_unexpected_and_misshapen_keys_are_all_listed(tmp_path: Path) -> None:
    state = load_official_state()
    del state["MAE_encoder.norm.bias"]
    state |= {"surprise": torch.zeros(2), "mask_token": torch.zeros(1, 1, 95)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth: the weights do not fit") as error:
        load(tmp_path / "x.pth", num_heads=3, num_groups=64)
    message = str(error.value)
    assert "missing: MAE_encoder.norm.bias (encoder.norm.bias)" in message
    assert "unexpected: surprise" in message
    assert "mask_token (decoder.mask_token) (1, 1, 95) instead of (1, 1, 96)" in message


@pytest.mark.parametrize("name", ["recon_pretrain_small.pth", "twotower_pretrain_small.pth"])
def test_official_names_round_trip(name: str) -> None:
    state = torch.load(released_path(name), weights_only=True)
    state = state.get("base_model", state)
    converted = from_official_state_dict(state)
    assert [to_official_key(key) for key in converted] == list(state)
    assert not {key for key in converted if "_encoder" in key or "MAE" in key}


@pytest.mark.slow
def test_every_missing_key_is_named(tmp_path: Path) -> None:
    state = load_official_state()
    for key in state:
        torch.save({k: v for k, v in state.items() if k != key}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=rf"missing: (.*, )?{re.escape(key)}\b"):
            load(tmp_path / "x.pth", num_heads=3, num_groups=64)


@pytest.mark.parametrize("pattern", ["img_proj", "img_(token|pos|proj)", r"\w*(img|text|cls)_"])
def test_released_files_without_a_modality_raise_value_error(pattern: str, tmp_path: Path) -> None:
    state = {
        k: v for k, v in load_official_state().items() if not re.search(rf"(^|\.){pattern}", k)
    }
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="missing: .*img_"):
        load(tmp_path / "x.pth", num_heads=3, num_groups=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0, "num_groups": 64}, "width 96 is not a multiple of the number of heads 0"),
        ({"num_groups": 64}, "lacks num_heads: pass it to load, .* base model num_heads=6 "),
        ({"num_heads": 3}, "the file lacks num_groups"),
        ({"num_heads": 3, "num_groups": 64, "group_size": 16}, "group_size=16 contradicts"),
        ({"num_heads": 5, "num_groups": 64}, "width 96 is not a multiple"),
        ({"num_heads": 3, "num_groups": 64, "task": "fly"}, "unknown task 'fly'"),
    ],
)
def test_invalid_arguments_raise_value_error(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(OFFICIAL, **arguments)


def test_unreadable_files_raise_errors_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.pth: no such checkpoint"):
        load(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        load(tmp_path)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(OFFICIAL.read_bytes()[:5000])
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        load(broken, num_heads=3, num_groups=64)
    broken.write_text("hello world, this is no checkpoint")
    with pytest.raises(ValueError, match=r"broken.pth: not a checkpoint that can be read"):
        load(broken, num_heads=3, num_groups=64)
    for content in ([1, 2], torch.zeros(3)):
        torch.save(content, broken)
        with pytest.raises(ValueError, match=r"broken.pth: holds a (list|Tensor), not"):
            load(broken, num_heads=3, num_groups=64)
    torch.save(load_official_state() | {"epoch": 3}, broken)
    with pytest.raises(ValueError, match=r"broken.pth: some entries are not weights: epoch"):
        load(broken, num_heads=3, num_groups=64)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no weights, only"):
        load(tmp_path / "empty.pth", num_heads=3, num_groups=64)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not the weights of a pretrained ReCon"):
        load(tmp_path / "other.pth", num_heads=3, num_groups=64, group_size=32)
