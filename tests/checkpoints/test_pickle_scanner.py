"""Files that want something executed, in every wrapping: refused by name, nothing run."""

import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import released_path
from recon.checkpoints.loading import load, read_task
from recon.checkpoints.provenance import read_provenance
from recon.checkpoints.reader import METADATA_KEY

CALLS = {
    "os.system": (os.system, lambda place: (f"touch {place}",)),
    "eval": (eval, lambda place: (f"open({str(place)!r}, 'w')",)),
    "exec": (exec, lambda place: (f"open({str(place)!r}, 'w')",)),
    "open": (open, lambda place: (str(place), "w")),
    "Path.touch": (Path.touch, lambda place: (place,)),
    "Popen": (subprocess.Popen, lambda place: (["touch", str(place)],)),
    "torch.load": (torch.load, lambda place: (str(place),)),
}


class Trap:
    def __init__(self, name: str, place: Path) -> None:
        self.called, self.arguments = CALLS[name][0], CALLS[name][1](place)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called, self.arguments


def wrapped(trap: object, way: str) -> bytes:
    state = torch.load(released_path("recon_pretrain_small.pth"), weights_only=True)["base_model"]
    held: Any = {
        "metrics": {"base_model": state, "metrics": trap},
        "weight": {"base_model": {**state, "mask_token": trap}},
        "name": {"base_model": {**state, trap: torch.zeros(1)}},
        "top": trap,
        "ours": {METADATA_KEY: {"num_heads": trap}, "state_dict": {"model.x": torch.zeros(1)}},
    }.get(way.partition("/")[0])
    file = io.BytesIO()
    if way.endswith("/pickle"):
        return pickle.dumps(held, protocol=4)
    torch.save(held, file, _use_new_zipfile_serialization=not way.endswith("/old"))
    return file.getvalue()


WAYS = ("metrics", "weight", "name", "top", "ours", "metrics/old", "top/old", "top/pickle")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_executed_however_it_is_wrapped(way: str, tmp_path: Path) -> None:
    place, path = tmp_path / "sprung", tmp_path / "x.pth"
    for name in CALLS:
        path.write_bytes(wrapped(Trap(name, place), way))
        for reader in (load, read_task, read_provenance):
            with pytest.raises(ValueError, match=r"x.pth: not a checkpoint that can be read safel"):
                reader(path)
        assert not place.exists(), name


@pytest.mark.slow
def test_the_refusal_tells_how_to_convert_consciously(tmp_path: Path) -> None:
    path, place = tmp_path / "it's official.pth", tmp_path / "sprung"
    state = torch.load(released_path("recon_pretrain_small.pth"), weights_only=True)["base_model"]
    torch.save({"base_model": state, "metrics": Trap("open", place)}, path)
    with pytest.raises(ValueError, match="if you trust whoever made it") as caught:
        load(path)
    assert not place.exists()
    command = str(caught.value).partition("python -c ")[2]
    subprocess.run(f"{sys.executable} -c {command}", shell=True, check=True, cwd=tmp_path)
    assert place.exists()  # consciously
    network = load(tmp_path / "it's official_weights.pth", num_heads=3, num_groups=64)
    assert network.encode(torch.rand(1, 100, 3)).tokens.shape == (1, 64, 96)


def test_broken_files_get_no_advice_to_execute_them(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    whole = released_path("recon_pretrain_small.pth").read_bytes()
    for broken in (b"", whole[:3000], b"no checkpoint", whole[:-3000]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="x.pth: not a checkpoint") as caught:
            load(path)
        assert "python -c" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({METADATA_KEY: {}}, "holds no weights, only"),
        ({METADATA_KEY: {}, "state_dict": 3}, "holds no weights"),
        ({METADATA_KEY: 3, "state_dict": {"model.a.norm.weight": torch.zeros(1)}}, "x.pth: "),
        ({1: torch.zeros(1)}, "holds 1, which is no name of weights"),
        ({"base_model": {1: torch.zeros(1)}}, "beside weights it holds 1"),
        ({"base_model": {"a": torch.zeros(1), "b": np.float64(3)}}, "beside weights it holds b"),
        ({"base_model": OrderedDict()}, "holds no weights"),
        ({"base_model": None}, "holds no weights"),
    ],
)
def test_strange_contents_are_named(content: object, why: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=why):
        load(tmp_path / "x.pth", num_heads=3, num_groups=64)


def test_numpy_numbers_are_let_in_and_their_objects_are_not(tmp_path: Path) -> None:
    state = torch.load(released_path("recon_pretrain_small.pth"), weights_only=True)["base_model"]
    told = {"num_heads": 3, "num_groups": 64}
    good = {"acc": np.float64(0.5), "best": np.float32(0.25), "epoch": np.int64(3)}
    torch.save({"base_model": state, "metrics": good}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth", **told).training is False
    values = {
        row["measure"]: row["value"] for row in read_provenance(tmp_path / "x.pth")["metrics"]
    }
    assert values == {"acc": 0.5, "best": 0.25, "epoch": 3.0}
    torch.save({"base_model": state, "metrics": np.array([Trap])}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not a checkpoint that can be read safely"):
        load(tmp_path / "x.pth", **told)
