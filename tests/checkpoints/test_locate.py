"""Saved folders: configurations and weights have limited sizes and belong together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recon.checkpoints import locate
from recon.checkpoints.locate import (
    CONFIG_FILENAME,
    WEIGHTS_FILENAME,
    is_safetensors_checkpoint,
    locate_checkpoint,
    read_safetensors_checkpoint,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({f"a{number}": torch.zeros(0) for number in range(3)}, tmp_path / WEIGHTS_FILENAME)
    (tmp_path / CONFIG_FILENAME).write_text(json.dumps({"network": {"num_heads": 3}}))
    return tmp_path


def test_a_folder_and_its_weights_are_the_same_checkpoint(folder: Path) -> None:
    for path in (folder, folder / WEIGHTS_FILENAME):
        assert is_safetensors_checkpoint(path)
        assert locate_checkpoint(str(path)) == path
        config, state = read_safetensors_checkpoint(path)
        assert config == {"network": {"num_heads": 3}}
        assert sorted(state) == ["a0", "a1", "a2"]
    (folder / CONFIG_FILENAME).unlink()
    assert read_safetensors_checkpoint(folder)[0] == {}  # weights of another program
    save_file({"encoder.embed.point_in.weight": torch.zeros(0)}, folder / WEIGHTS_FILENAME)
    with pytest.raises(FileNotFoundError, match=r"config\.json: missing"):
        read_safetensors_checkpoint(folder)


def test_weights_have_a_limited_number_of_tensors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "MAX_TENSORS", 2)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*\b3 tensors"):
        read_safetensors_checkpoint(folder)
    monkeypatch.setattr(locate, "MAX_TENSORS", 3)
    read_safetensors_checkpoint(folder)


def test_a_configuration_has_a_limited_size_and_depth(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (folder / CONFIG_FILENAME).stat().st_size
    monkeypatch.setattr(locate, "MAX_CONFIG_BYTES", size - 1)
    with pytest.raises(ValueError, match=rf"config\.json: .*\b{size}\b"):
        read_safetensors_checkpoint(folder)
    monkeypatch.setattr(locate, "MAX_CONFIG_BYTES", size)
    read_safetensors_checkpoint(folder)

    def recurse(text: str) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("json.loads", recurse)
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        read_safetensors_checkpoint(folder)
