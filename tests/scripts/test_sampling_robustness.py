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
def test_denser_samples_are_more_similar_than_another_solid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load(released_path("recon_pretrain_small.pth"), num_heads=3, num_groups=64)
    monkeypatch.setitem(SCRIPT["compute_cosines"].__globals__, "POINT_COUNTS", (256, 512, 1024))
    cosines = SCRIPT["compute_cosines"](recon.PointEncoder(network))
    assert set(cosines) == {"pooled", "cls", "image_projected", "text_projected"}
    for rows in cosines.values():
        assert rows["512 points"].mean() > rows["another solid"].mean()
        assert len(rows["another solid"]) == 21
        assert all(values.abs().max() <= 1 + 1e-5 for values in rows.values())
    write_pretrained_folder(network, tmp_path / "saved", {})
    SCRIPT["main"]([str(tmp_path / "saved")])
    assert "another solid" in capsys.readouterr().out


def test_points_are_uniform_on_the_surface() -> None:
    box = SCRIPT["make_solids"]()["box"]
    points = torch.from_numpy(SCRIPT["sample_surface"](box, 20_000, 0))
    on_top = (points[:, 1] > 0.5 - 1e-6).float().mean()
    assert abs(on_top - 2.0 * 0.6 / box.area) < 0.01
