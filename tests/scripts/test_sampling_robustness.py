import runpy
from pathlib import Path

import pytest
import torch

import recon
from conftest import released_path
from recon.checkpoints.loading import load
from recon.checkpoints.writer import write_pretrained_folder

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "sampling_robustness.py"))


@pytest.mark.slow
def test_more_points_of_a_surface_lie_nearer_than_another_surface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load(released_path("recon_pretrain_small.pth"), num_heads=3, num_groups=64)
    monkeypatch.setitem(SCRIPT["compute_cosines"].__globals__, "POINT_COUNTS", (256, 512, 1024))
    found = SCRIPT["compute_cosines"](recon.PointEncoder(network))
    assert set(found) == {"pooled", "cls", "image_projected", "text_projected"}
    for row in found.values():
        assert row["512 points"].mean() > row["another solid"].mean()
        assert len(row["another solid"]) == 21
        assert all(cosines.abs().max() <= 1 + 1e-5 for cosines in row.values())
    write_pretrained_folder(network, tmp_path / "saved", {})
    SCRIPT["main"]([str(tmp_path / "saved")])
    assert "another solid" in capsys.readouterr().out


def test_points_are_spread_evenly_over_the_surface() -> None:
    box = SCRIPT["make_solids"]()["box"]
    points = torch.from_numpy(SCRIPT["sample_surface"](box, 20_000, 0))
    on_top = (points[:, 1] > 0.5 - 1e-6).float().mean()
    assert abs(on_top - 2.0 * 0.6 / box.area) < 0.01
