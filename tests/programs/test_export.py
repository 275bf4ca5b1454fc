from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from conftest import released_path
from recon.checkpoints.loading import load
from recon.cli.config_dir import conf_dir
from recon.export import export

PATH = released_path("recon_pretrain_small.pth")
SETTINGS = {"num_heads": 3, "num_groups": 64}


def load_config(out: Path, **options: Any) -> Any:
    options |= {"checkpoint": str(PATH), "out": str(out), "network": SETTINGS}
    return OmegaConf.merge(OmegaConf.load(Path(conf_dir()) / "export.yaml"), options)


def test_official_export_keeps_all_weights_and_prints_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(load_config(tmp_path, format="official"))
    assert "num_heads, num_groups and class names are not in this" in capsys.readouterr().out
    exported = load(tmp_path / "weights.pth", **SETTINGS).state_dict()
    for name, value in load(PATH, **SETTINGS).state_dict().items():
        assert torch.equal(exported[name], value)
    with pytest.raises(FileExistsError, match="weights.pth: already exists"):
        export(load_config(tmp_path, format="official"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format=tflite: choose pretrained, official, onnx"),
        ({"format": "onnx", "push": True}, "push=true uploads format=pretrained"),
        (
            {"format": "torch_export", "num_points": 50},
            "num_points=50: the patches of the network need at least",
        ),
    ],
)
def test_invalid_options_raise_value_error(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export(load_config(tmp_path, **options))
