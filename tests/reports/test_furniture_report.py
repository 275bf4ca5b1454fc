import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.train import train

ParsePage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrain a tiny network briefly; return the folder with its report."""
    folder = tmp_path_factory.mktemp("run")
    short = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", f"output_dir={folder}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *short]))
    return folder


def test_results_contain_accuracies_with_intervals(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    assert results["baselines"].keys() == {"untrained", "calibrated", "descriptor"}
    for metrics in (results["metrics"], *results["baselines"].values()):
        for name, (value, low, high) in ((n, m.values()) for n, m in metrics.items()):
            assert low <= value <= high, name
            assert name == "difference" or 0 <= low <= high <= 1
    svm = results["metrics"]["linear_svm"]["value"]
    for baseline in results["baselines"].values():
        expected = svm - baseline["linear_svm"]["value"]
        assert baseline["difference"]["value"] == pytest.approx(expected)
    descriptor = results["baselines"]["descriptor"]["linear_svm"]["value"]
    assert descriptor == pytest.approx(0.5, abs=0.1)  # the descriptor is not learned
    assert 0 <= results["metrics"]["zero_shot"]["value"] <= 1
    assert 0 < results["seconds"] < 600
    assert (results["task"], results["seed"], results["split"]) == ("pretrain", 0, "test")
    assert results["data"]["set"] == "Furniture"
    assert (folder / results["checkpoint"]).is_file()


def test_page_loads_no_other_file(folder: Path, parse_page: ParsePage) -> None:
    page = parse_page(folder / "report.html")
    images = [link for link in page.links if not link.startswith("#")]
    assert images
    assert all(link.startswith("data:image/webp;base64,") for link in images)


def test_page_shows_all_sections(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        "Linear probe and zero-shot", "Masked reconstruction", "Query attention", "t-SNE",
        "Nearest neighbors", "Training curves", "Confusion matrix",
        "Environment and configuration",
    ]  # fmt: skip
    assert len(re.findall("<canvas ", text)) == 6 * 3 + 3 * 3
    assert text.count("<img ") == 6 * 7
    assert "<svg" in text
    for word in ("reconstruction", "image", "text", "total"):
        assert word in text
    assert "_target_: recon.tasks.pretrain.ReConStudent" in text
    counts = [int(n) for n in re.findall(r'title="(\d+) of', text)]
    assert sum(counts) == 141
    assert len(counts) == 26 * 26


def test_generative_student_has_no_zero_shot(tmp_path: Path) -> None:
    options = ["student=generative", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", ["experiment=pretrain_furniture", "debug=tiny", *options]))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"].keys() == {"linear_svm"}
    text = (tmp_path / "report.html").read_text()
    assert "zero-shot" not in text
    assert "without teachers" in text
    assert "Captions" not in text
