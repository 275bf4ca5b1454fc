import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conftest import released_path
from recon.checkpoints.loading import load
from recon.cli.config_dir import conf_dir
from recon.info import count_flops, inspect_checkpoint, quote_checkpoint_argument
from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from saved_run import write_run


def load_config(**options: Any) -> Any:
    return OmegaConf.merge(OmegaConf.load(Path(conf_dir()) / "info.yaml"), options)


def test_info_prints_sizes_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_run(tmp_path / "run") / "checkpoints" / "last.ckpt")
    summary = inspect_checkpoint(load_config(checkpoint=path, json=True))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(summary))
    network = load(path)
    assert summary["network"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert summary["network"]["flops"] == count_flops(network, 1024) > 0
    assert [row["value"] for row in summary["metrics"]] == [0.7, 0.6, 0.25]
    inspect_checkpoint(load_config(checkpoint=path))
    table = " ".join(capsys.readouterr().out.split())
    for fragment in (
        "ReCon",
        "ShapeNet",
        "70.0 %",
        "AdamW",
        "per cloud of 1,024 points",
        "8 of 8 points",
    ):
        assert fragment in table, fragment


def test_flops_are_those_of_the_matrix_products() -> None:
    """Count by hand for one block of width d, g patches of k points, h heads."""
    d, g, k, points = 16, 8, 8, 64
    a, b, c = 8, 16, 24
    network = ReCon(
        PatchGrouper(g, k),
        Encoder(d, depth=1, heads=2, queries=(), patch_widths=(a, b, c)),
        Decoder(d, depth=1, heads=2, group_size=k),
        Projections(d, {}),
    )
    rows = g * k
    embed = rows * (3 * a + a * b + b * c + c * d) + g * b * c
    position = g * (3 * 128 + 128 * d)
    attention = g * d * 3 * d + 2 * g * g * d + g * d * d
    mlp = 2 * g * d * 4 * d
    assert count_flops(network.eval(), points) == 2 * (embed + position + attention + mlp)


@pytest.mark.parametrize("name", ["epoch=3.ckpt", "it's mine.ckpt", "a b,c.ckpt", "{x}.ckpt"])
def test_any_file_name_can_be_the_first_argument(name: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("info", quote_checkpoint_argument([name, "json=true"]))
        assert cfg.checkpoint == name
        assert cfg.json is True
        options = ["json=true", "checkpoint=x.ckpt"]
        assert compose("info", quote_checkpoint_argument(options)).checkpoint == "x.ckpt"


def test_info_describes_released_files() -> None:
    for name in ("recon_cls_small.pth", "recon_seg_small.pth"):
        settings = {"num_heads": 3, "num_groups": 32}
        path = str(released_path(name))
        summary = inspect_checkpoint(load_config(checkpoint=path, network=settings, json=True))
        assert summary["format"] == "released ReCon weights"
        assert summary["network"]["task"] == ("classify" if "cls" in name else "part_segment")
    with pytest.raises(ValueError, match="the file lacks num_heads"):
        inspect_checkpoint(load_config(checkpoint=str(released_path("recon_pretrain_small.pth"))))
