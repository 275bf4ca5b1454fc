import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.reports.html_page import VIEWER_RADIUS, encode_cloud
from recon.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a toy network that ends with its report."""
    folder = tmp_path_factory.mktemp("run")
    short = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", f"output_dir={folder}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *short]))
    return folder


def test_results_hold_accuracies_with_intervals(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    rows = results["svm"]
    assert rows.keys() == {"pretrained", "untrained", "calibrated", "descriptor", "gain"}
    for name, (mean, low, high) in rows.items():
        assert low <= mean <= high, name
        assert name == "gain" or 0 <= low <= high <= 1
    gain = rows["pretrained"][0] - rows["untrained"][0]
    assert rows["gain"][0] == pytest.approx(gain)
    assert rows["descriptor"][0] == pytest.approx(0.5, abs=0.1)  # nothing in it is learned
    assert 0 <= results["zero_shot"] <= 1
    assert 0 < results["seconds"] < 600


class Links(HTMLParser):
    """Collect everything a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_file(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert len(text) < 5_000_000
    links = [link for link in Links(text).found if not link.startswith("#")]
    assert links
    assert all(link.startswith("data:image/webp;base64,") for link in links)
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")


def test_the_page_shows_what_it_should(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert len(re.findall("<canvas ", text)) == 6 * 3 + 3 * 3
    assert text.count("<img ") == 6 * 7
    assert "<svg" in text
    for word in ("reconstruction", "image", "text", "total"):
        assert word in text
    assert "_target_: recon.tasks.pretrain.ReConStudent" in text
    counts = [int(n) for n in re.findall(r'title="(\d+) of', text)]
    assert sum(counts) == 141
    assert len(counts) == 26 * 26


def test_clouds_come_back_from_the_page() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    colors = np.arange(150, dtype=np.uint8).reshape(50, 3)
    cloud = encode_cloud(points, colors)
    decoded = np.frombuffer(base64.b64decode(cloud.points), "<i2").reshape(-1, 3)
    assert np.abs(decoded / 32767 * VIEWER_RADIUS - points).max() < 1e-4
    assert np.array_equal(np.frombuffer(base64.b64decode(cloud.colors), np.uint8), colors.ravel())


def test_a_generative_student_has_a_report_without_zero_shot(tmp_path: Path) -> None:
    options = ["student=generative", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *options]))
    assert json.loads((tmp_path / "results.json").read_text())["zero_shot"] is None
    text = (tmp_path / "report.html").read_text()
    assert "zero-shot" not in text
    assert "without teachers" in text
    assert "Captions" not in text
