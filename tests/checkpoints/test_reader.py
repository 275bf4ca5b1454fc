"""Weights that do not fit a network, or are not stored as they seem, are refused by name."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recon.checkpoints import reader
from recon.checkpoints.contents import tensors
from recon.checkpoints.factory import NetworkBuilder
from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.metadata import MAX_METADATA_COUNT
from recon.checkpoints.reader import (
    METADATA_KEY,
    count_blocks,
    extract_weights,
    hash_weights,
    read_checkpoint,
)
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections

WEIGHT = "model.encoder.norm.weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound checkpoint of a small network."""
    sizes = {"depth": 1, "heads": 2, "patch_widths": (8, 8, 8)}
    encoder, projections = Encoder(8, **sizes), Projections(8, {"image": 5})
    model = ContrastiveNetwork(PatchGrouper(8, 6), encoder, projections)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, METADATA_KEY: build_metadata(model)}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def weight(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["state_dict"].update({WEIGHT: value})


def metadata(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint[METADATA_KEY].update({name: value})


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "expanded": weight(torch.zeros(1).expand(8)),
    "width": weight(torch.zeros(16)),
    "sparse": weight(torch.sparse_coo_tensor(size=(8,))),
    "on_meta": weight(torch.zeros(8, device="meta")),
    "complex": weight(torch.zeros(8, dtype=torch.complex64)),
    "nan": weight(torch.full((8,), torch.nan)),
    "infinite": weight(torch.full((8,), 1e300, dtype=torch.float64)),
    "number": weight(3),
    "key": lambda checkpoint: checkpoint["state_dict"].update({3: torch.zeros(1)}),
    "no_state": lambda checkpoint: checkpoint.update(state_dict=3),
    "unprintable": lambda checkpoint: checkpoint["state_dict"].update(
        {"model.\x1b[2J\n": torch.ones(1)}
    ),
    "list": lambda checkpoint: checkpoint.update({METADATA_KEY: [1]}),
    "heads": metadata("num_heads", 7),
    "text": metadata("num_groups", "8"),
    "many_groups": metadata("num_groups", MAX_METADATA_COUNT + 1),
    "negative": metadata("group_size", -1),
    "no_heads": lambda checkpoint: checkpoint[METADATA_KEY].pop("num_heads"),
}


@pytest.mark.filterwarnings("ignore:.*sparse tensor")
@pytest.mark.parametrize("name", CHANGES)
def test_checkpoints_that_do_not_fit_are_named(name: str, path: Path) -> None:
    assert load(path).training is False
    checkpoint = torch.load(path, weights_only=True)
    CHANGES[name](checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load(path)
    assert str(caught.value).isprintable()


def test_sizes_are_checked_before_a_network_takes_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, build = [], NetworkBuilder.build

    def record(builder: NetworkBuilder, *arguments: Any) -> Any:
        devices.append(torch.zeros(0).device.type)
        return build(builder, *arguments)

    monkeypatch.setattr(NetworkBuilder, "build", record)
    load(path)
    assert devices == ["meta", "cpu"]
    checkpoint = torch.load(path, weights_only=True)
    weight(torch.zeros(16))(checkpoint)
    torch.save(checkpoint, path)
    devices.clear()
    with pytest.raises(ValueError, match=r"last\.ckpt: "):
        load(path)
    assert set(devices) <= {"meta"}


def test_messages_list_a_limited_number_of_names(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] |= {f"model.x{number}": torch.ones(1) for number in range(150)}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"model\.x0|x0, .* and 50 more") as caught:
        load(path)
    assert len(str(caught.value)) < 3000
    monkeypatch.setattr(tensors, "MAX_LISTED_NAMES", 2)
    strange = {"a": torch.zeros(1)} | {f"y{number}": number for number in range(9)}
    with pytest.raises(ValueError, match=r"y0, y1$"):
        extract_weights(path, {"base_model": strange})


def test_a_network_has_a_limited_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"blocks.{number}.weight" for number in range(3)]
    monkeypatch.setattr(reader, "MAX_BLOCKS", 2)
    with pytest.raises(ValueError, match=r"\b3 blocks"):
        count_blocks(names, r"blocks\.(\d+)")
    monkeypatch.setattr(reader, "MAX_BLOCKS", 3)
    assert count_blocks(names, r"blocks\.(\d+)") == 3


def rewrite(path: Path, compression: int) -> None:
    """Write an archive again with another compression."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_checkpoints_are_stored_without_compression(path: Path) -> None:
    rewrite(path, zipfile.ZIP_STORED)
    load(path)
    rewrite(path, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"last\.ckpt: .*unpacks"):
        load(path)


def test_a_changed_weight_is_found_by_its_checksum(path: Path) -> None:
    content = path.read_bytes()
    stored = torch.load(path, weights_only=True)["state_dict"][WEIGHT].numpy().tobytes()
    place = content.index(stored)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"last\.ckpt: .*checksum"):
        load(path)


def test_a_file_is_one_archive_with_each_name_once(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content + content)
    with pytest.raises(ValueError, match=r"last\.ckpt: .*archive"):
        load(path)
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/version"))
        archive.writestr(name.upper(), archive.read(name))
    with pytest.raises(ValueError, match=r"last\.ckpt: .*archive"):
        load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 1j])
def test_weights_that_are_not_finite_are_named(value: complex, tmp_path: Path) -> None:
    state = {"a.weight": torch.zeros(3), "b.weight": torch.tensor([value, 0])}
    if value == 1e300:
        state["b.weight"] = torch.tensor([value], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"x\.pth: 'b\.weight' "):
        extract_weights(tmp_path / "x.pth", {"base_model": state})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match=r"x\.pth"):
        read_checkpoint(tmp_path / "x.pth")


def test_hashes_change_with_any_weight() -> None:
    state = {"a": torch.zeros(3), "b": torch.zeros(0)}
    digests = [
        hash_weights(changed)
        for changed in (state, state | {"a": torch.ones(3)}, {"c": state["a"], "b": state["b"]})
    ]
    assert len(set(digests)) == 3
    assert digests[0] == hash_weights(dict(reversed(state.items())))
    assert all(re.fullmatch(r"[0-9a-f]{12}", digest) for digest in digests)
