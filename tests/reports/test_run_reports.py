"""Reports of pretraining, evaluations and classifiers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.evaluate import evaluate
from recon.reports.report_data import ReportData, read_report_data
from recon.train import train

ParsePage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrain briefly, with the report of any data set rather than of the bundled one."""
    folder = tmp_path_factory.mktemp("pretrained")
    options = ["experiment=pretrain_furniture", "debug=tiny", f"output_dir={folder}"]
    options += ["callbacks.report._target_=recon.reports.run_reports.PretrainingReport"]
    options += ["num_points=64", "trainer.limit_train_batches=6"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", options))
    return folder


def test_pretraining_writes_report_and_report_data(pretrained: Path, parse_page: ParsePage) -> None:
    page = parse_page(pretrained / "report.html")
    assert page.sections == ["gallery", "gallery", "tsne", "neighbors", "curves", "environment"]
    text = (pretrained / "report.html").read_text()
    assert f"Pretraining report: {pretrained.parent.name}/{pretrained.name}</h1>" in text
    docs = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", docs, re.DOTALL)
    variables: dict[str, ReportData] = {}
    exec(snippet.replace("<run>", str(pretrained)), variables)
    report_data = variables["report_data"]
    assert report_data.curves.keys() == {"total", "reconstruction", "image", "text"}
    assert list(report_data.curves["total"]) == [1, 2, 3, 4, 5, 6]
    assert report_data.tsne is not None
    assert len(report_data.tsne.names) == 24  # the shapes of six batches of four


@pytest.mark.slow
def test_evaluations_and_classifiers_write_reports(
    pretrained: Path, tmp_path: Path, parse_page: ParsePage
) -> None:
    checkpoint = f"checkpoint={pretrained / 'checkpoints' / 'last.ckpt'}"
    options = [f"output_dir={tmp_path / 'svm'}", "task.cost=0.01", "num_points=64", checkpoint]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        scores = evaluate(compose("evaluate", options))
        short = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "num_points=64"]
        folder = tmp_path / "classifier"
        train(compose("train", [*short, f"output_dir={folder}", "trainer.limit_train_batches=3"]))
    assert scores is not None
    sections = ["bars", "bars", "gallery", "tsne", "neighbors"]
    assert parse_page(tmp_path / "svm" / "report.html").sections == [
        *sections, "confusion", "environment",
    ]  # fmt: skip
    report_data = read_report_data(tmp_path / "svm")
    assert report_data.confusion_matrix is not None
    assert np.array_equal(report_data.confusion_matrix.counts, scores.confusion_matrix.numpy())
    page = (tmp_path / "svm" / "report.html").read_text()
    results = json.loads((tmp_path / "svm" / "results.json").read_text())
    assert results["fingerprint"] in page
    assert parse_page(folder / "report.html").sections == [
        *sections, "curves", "confusion", "environment",
    ]  # fmt: skip
    assert read_report_data(folder).curves.keys() == {"loss", "val/accuracy"}
