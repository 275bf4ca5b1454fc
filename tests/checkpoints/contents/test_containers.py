"""Weights are found under any key and prefix; averaged and other networks are told apart."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recon.checkpoints.contents.containers import find_weights

NAMES = ("encoder.first_conv.0.weight", "blocks.blocks.0.norm1.weight", "norm.bias")
RAW = {f"MAE_encoder.{name}": torch.full((2,), number) for number, name in enumerate(NAMES)}
EMA = {name: value + 1 for name, value in RAW.items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


CONTENTS: dict[str, dict[str, Any]] = {
    "bare": RAW,
    "state_dict": {"state_dict": RAW, "epoch": 3},
    "any_key": {"weights_of_mine": RAW, "metrics": {"accuracy": 0.5}},
    "nested": {"checkpoint": {"model": prefixed("module.")}, "optimizer": {"state": {0: {}}}},
    "compiled": {"model": prefixed("_orig_mod.")},
    "compiled_in_ddp": {"model": prefixed("module._orig_mod.")},
    "compiled_block": {
        "model": {name.replace("blocks.0.", "blocks.0._orig_mod."): v for name, v in RAW.items()}
    },
    "lightning_wrapper": {"state_dict": prefixed("net.student."), "pytorch-lightning_version": "2"},
    "averaged_model": {"model": prefixed("module.") | {"n_averaged": torch.tensor(3)}},
    "averaged_only": {"model_ema": RAW},
    "same_twice": {"base_model": RAW, "state_dict": {k: v.clone() for k, v in RAW.items()}},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONTENTS)
def test_weights_are_found_under_their_released_names(name: str) -> None:
    found = find_weights(Path("x.pth"), CONTENTS[name])
    assert found is not None
    assert found.state.keys() == RAW.keys()
    assert all(torch.equal(found.state[key], value) for key, value in RAW.items())


OTHERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "model_ema": ({"model": RAW, "model_ema": EMA}, "model", "model_ema"),
    "ema": ({"ema": EMA, "net": RAW}, "net", "ema"),
    "state_dict_ema": ({"state_dict_ema": EMA, "state_dict": RAW}, "state_dict", "state_dict_ema"),
    "known_key": ({"a": EMA, "base_model": RAW}, "base_model", "a"),
    "teacher": ({"teacher": EMA, "student": RAW}, "student", "teacher"),
    "prefixes": (
        {"s": prefixed("ema_model.", EMA) | prefixed("online_model.")},
        r"s/online_model\.\*",
        r"s/ema_model\.\*",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_raw_weights_of_usual_keys_are_read_and_the_others_named(name: str) -> None:
    content, read, left = OTHERS[name]
    with pytest.warns(UserWarning, match=rf"x\.pth: reads the weights in {read}, not .* {left},"):
        found = find_weights(Path("x.pth"), content)
    assert found is not None
    assert all(torch.equal(found.state[key], value) for key, value in RAW.items())


def test_unclear_choices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.pth: holds several networks, a, b: save the one"):
        find_weights(Path("x.pth"), {"b": EMA, "a": RAW})


def test_weights_outside_of_the_network_are_named() -> None:
    content = {"state_dict": prefixed("model.") | {"fc.bias": torch.zeros(2)}}
    with pytest.warns(UserWarning, match=r"outside of the network in state_dict/model\.\*: fc\."):
        find_weights(Path("x.pth"), content)


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": lambda: {"epoch": 3},
    "another": lambda: {"state_dict": {"conv.weight": torch.zeros(2)}},
    "teachers": lambda: {"text_encoder.encoder.first_conv.0.weight": torch.zeros(2)},
    "too_deep": lambda: {"a": {"b": {"c": {"d": {"e": RAW}}}}},
}


@pytest.mark.parametrize("name", MAKERS)
def test_other_contents_have_no_network(name: str) -> None:
    assert find_weights(Path("x.pth"), MAKERS[name]()) is None
