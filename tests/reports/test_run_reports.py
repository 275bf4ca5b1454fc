"""Pages and pictures of runs: sections that can be filled appear, and show what was measured."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from recon.cli.config_dir import conf_dir
from recon.evaluate import evaluate
from recon.figures import draw_figures
from recon.layers.attention import CrossAttention
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.reports.colors import HEATMAP_COLORS, color_by_value
from recon.reports.html_page import write_page
from recon.reports.html_sections import build_curve_sections, build_introspection_sections
from recon.reports.introspection import attention_maps, tsne
from recon.reports.report_data import (
    AttentionMap,
    ConfusionMatrix,
    ReconstructedShape,
    ReportData,
    TSNEEmbedding,
    read_report_data,
    write_report_data,
)
from recon.train import train

RNG = np.random.default_rng(0)


def cloud(count: int = 40) -> np.ndarray:
    return RNG.uniform(-0.5, 0.5, (count, 3)).astype(np.float32)


def everything() -> ReportData:
    """Return exhibits of every kind."""
    return ReportData(
        {"total": {step: 1.0 / step for step in range(1, 40)}},
        [ReconstructedShape("a <b>", cloud(), np.full((40, 3), 9, np.uint8), cloud(20), cloud(16))],
        [AttentionMap("c", cloud(), {"image": RNG.random(40), "text": RNG.random(40)})],
        TSNEEmbedding(
            RNG.random((6, 2)), np.array([0, 1, 1, 0, -1, 2]), list("pqrstu"), ["x", "y", "z"]
        ),
        ConfusionMatrix(np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]]), ["x", "y", "z"]),
    )


class Parsed(HTMLParser):
    """What a page holds: its tags, what it would fetch, and whether tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sections: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        told = dict(attrs)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "section":
            self.sections.append(told.get("class") or told["id"] or "")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def read_page(path: Path) -> Parsed:
    text = path.read_text()
    assert len(text) < 5_000_000
    found = Parsed(text)
    assert all(link.startswith(("#", "data:image/")) for link in found.links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return found


def opened(path: Path) -> str:
    """Return a page as a browser has it after its scripts, or as it is where there is none."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return path.read_text()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command = [browser, *flags, f"--user-data-dir={path.parent / 'browser'}", "--dump-dom"]
    return subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_only_what_there_is_appears(tmp_path: Path) -> None:
    shown, page = everything(), tmp_path / "a.html"
    write_page(
        page,
        "T",
        "L",
        [*build_introspection_sections(shown, subject="Shapes"), *build_curve_sections(shown)],
    )
    assert read_page(page).sections == [
        "gallery", "gallery", "tsne", "curves", "confusion", "environment",
    ]  # fmt: skip
    write_page(
        page,
        "T",
        "L",
        [
            *build_introspection_sections(ReportData(), subject="Shapes"),
            *build_curve_sections(ReportData()),
        ],
    )
    assert read_page(page).sections == ["environment"]
    for field in ReportData._fields:
        one = ReportData(**{field: getattr(shown, field)})
        write_page(
            page,
            "T",
            "L",
            [*build_introspection_sections(one, subject="Shapes"), *build_curve_sections(one)],
        )
        assert len(read_page(page).sections) == 2, field


def test_names_are_text_not_html(tmp_path: Path) -> None:
    write_page(
        tmp_path / "a.html",
        "T",
        "L",
        build_introspection_sections(everything(), subject="Shapes"),
        "key: <script>",
    )
    text = (tmp_path / "a.html").read_text()
    assert "a &lt;b&gt;: rebuilt" in text
    assert "key: &lt;script&gt;" in text


@pytest.mark.slow
def test_a_browser_draws_the_clouds(tmp_path: Path) -> None:
    shown, page = everything(), tmp_path / "a.html"
    write_page(
        page,
        "T",
        "L",
        [*build_introspection_sections(shown, subject="Shapes"), *build_curve_sections(shown)],
    )
    probe = """<script>
      const lit = c => c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(x => x);
      const all = [...document.querySelectorAll("canvas")];
      document.body.dataset.drawn = all.filter(lit).length;
      const before = all.map(c => c.toDataURL());
      const move = (type, x) => all[0].dispatchEvent(
        new PointerEvent(type, {movementX: x, bubbles: true, pointerId: 1}));
      all[0].setPointerCapture = () => {};
      move("pointerdown", 0); move("pointermove", 60);
      document.body.dataset.turned = all.filter((c, i) => c.toDataURL() !== before[i]).length;
      document.querySelector(".legend span").dispatchEvent(new PointerEvent("pointerenter"));
      document.body.dataset.faint = document.querySelectorAll("circle.faint").length;
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", probe))
    text = opened(page)
    assert len(re.findall("<canvas ", text)) == 3 + 2
    if shutil.which("chromium"):
        assert 'data-drawn="5"' in text
        assert 'data-turned="3"' in text  # of one group, together
        assert 'data-faint="4"' in text  # two of six dots are of the first class


def test_exhibits_come_back_from_their_file(tmp_path: Path) -> None:
    shown = everything()
    write_report_data(tmp_path, shown)
    found = read_report_data(tmp_path)
    assert found.curves == shown.curves
    for field in ReconstructedShape._fields:
        assert np.array_equal(
            getattr(found.reconstructions[0], field), getattr(shown.reconstructions[0], field)
        )
    assert found.attention_maps[0].weights.keys() == {"image", "text"}
    assert np.array_equal(
        found.attention_maps[0].weights["text"], shown.attention_maps[0].weights["text"]
    )
    assert found.tsne is not None
    assert shown.tsne is not None
    assert np.array_equal(found.tsne.coordinates, shown.tsne.coordinates)
    assert found.tsne.classes == shown.tsne.classes
    assert found.confusion_matrix is not None
    assert found.confusion_matrix.counts.tolist() == [[2, 1, 0], [0, 3, 0], [0, 0, 0]]
    write_report_data(tmp_path, ReportData())
    assert read_report_data(tmp_path) == ReportData({}, [], [])


def test_figures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    write_report_data(tmp_path, everything())
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("figures", [f"run={tmp_path}", f"out={tmp_path / 'out'}", "dpi=60"])
    names = ["curves", "rebuilt", "attention", "tsne", "confusion"]
    assert [path.name for path in draw_figures(cfg)] == [f"{name}.png" for name in names]
    for name in names:
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
            assert len(np.unique(pixels, axis=0)) > 5
    write_report_data(tmp_path, ReportData())
    with pytest.raises(ValueError, match="this run left nothing to draw"):
        draw_figures(cfg)
    (tmp_path / "report_data.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="report_data.npz: not a readable archive"):
        draw_figures(cfg)
    cfg.run = str(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="a run leaves it beside its report.html"):
        draw_figures(cfg)


def test_attention_is_that_of_the_forward_pass() -> None:
    layer, queries, tokens = (
        CrossAttention(12, heads=3),
        torch.randn(2, 2, 12),
        torch.randn(2, 5, 12),
    )
    weights = layer.attention_maps(queries, tokens)
    assert weights.shape == (2, 3, 2, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 2))
    value = (tokens @ layer.kv.weight[12:].T).unflatten(-1, (3, 4)).transpose(1, 2)
    out = layer.proj((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(out, layer(queries, tokens), atol=1e-6)


def test_points_are_coloured_by_what_their_patches_get() -> None:
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    network = ContrastiveNetwork(PatchGrouper(8, 8), encoder, Projections(24, {})).train()
    clouds = torch.rand(2, 64, 3)
    seen = attention_maps(network, ["a", "b"], clouds)
    assert network.training
    assert [list(shape.weights) for shape in seen] == [["cls", "image", "text"]] * 2
    centers = network.eval().encode(clouds).centers
    for row, shape in enumerate(seen):
        total = 0.0
        for center in centers[row].numpy():  # a centre is a point: its own patch's weight
            place = np.linalg.norm(shape.points - center, axis=1).argmin()
            total += shape.weights["image"][place]
        assert total == pytest.approx(1, abs=0.02)
    plain = Encoder(24, depth=2, heads=2, queries=(), patch_widths=(8, 16, 16))
    assert (
        attention_maps(
            ContrastiveNetwork(PatchGrouper(8, 8), plain, Projections(24, {})), ["a"], clouds
        )
        == []
    )


def test_heat_goes_from_none_to_the_most() -> None:
    colors = color_by_value(np.array([0.0, 0.5, 1.0]))
    assert colors.tolist() == [
        HEATMAP_COLORS[0].tolist(),
        HEATMAP_COLORS[2].tolist(),
        HEATMAP_COLORS[-1].tolist(),
    ]


def test_neighbours_in_features_stay_neighbours_in_the_plane() -> None:
    middles = 20 * RNG.normal(size=(3, 8))
    features = np.repeat(middles, 10, 0) + RNG.normal(size=(30, 8))
    labels = np.repeat(np.arange(3), 10)
    plane = tsne(features, labels, [str(n) for n in range(30)], list("abc"))
    assert plane is not None
    assert plane.coordinates.min() >= 0
    assert plane.coordinates.max() <= 1
    apart = np.linalg.norm(plane.coordinates[:, None] - plane.coordinates[None], axis=-1)
    np.fill_diagonal(apart, 9)
    assert (labels[apart.argmin(1)] == labels).mean() > 0.9
    assert tsne(features[:4], labels[:4], list("abcd"), list("abc")) is None


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short pretraining on data that are not the embedded ones' demo."""
    folder = tmp_path_factory.mktemp("pretrained")
    told = ["experiment=pretrain_furniture", "debug=tiny", f"output_dir={folder}", "num_points=64"]
    told += ["callbacks.report._target_=recon.reports.run_reports.PretrainingReport"]
    told += ["trainer.limit_train_batches=6"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", told))
    return folder


def test_any_pretraining_leaves_a_page(pretrained: Path) -> None:
    assert read_page(pretrained / "report.html").sections == [
        "gallery", "gallery", "tsne", "neighbors", "curves", "environment",
    ]  # fmt: skip
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    named: dict[str, ReportData] = {}
    exec(snippet.replace("<run>", str(pretrained)), named)
    shown = named["shown"]
    assert shown.curves.keys() == {"total", "reconstruction", "image", "text"}
    assert list(shown.curves["total"]) == [1, 2, 3, 4, 5, 6]
    assert shown.tsne is not None
    assert len(shown.tsne.names) == 24  # those of six batches of four


@pytest.mark.slow
def test_evaluations_and_classifiers_leave_a_page(pretrained: Path, tmp_path: Path) -> None:
    weights = f"checkpoint={pretrained / 'checkpoints' / 'last.ckpt'}"
    told = [f"output_dir={tmp_path / 'svm'}", "task.cost=0.01", "num_points=64", weights]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        found = evaluate(compose("evaluate", told))
        short = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0", "num_points=64"]
        folder = tmp_path / "classifier"
        train(compose("train", [*short, f"output_dir={folder}", "trainer.limit_train_batches=3"]))
    assert found is not None
    sections = ["bars", "bars", "gallery", "tsne", "neighbors"]
    assert read_page(tmp_path / "svm" / "report.html").sections == [
        *sections, "confusion", "environment",
    ]  # fmt: skip
    shown = read_report_data(tmp_path / "svm")
    assert shown.confusion_matrix is not None
    assert np.array_equal(shown.confusion_matrix.counts, found.confusion_matrix.numpy())
    page = (tmp_path / "svm" / "report.html").read_text()
    results = json.loads((tmp_path / "svm" / "results.json").read_text())
    assert results["fingerprint"] in page
    assert read_page(folder / "report.html").sections == [
        *sections, "curves", "confusion", "environment",
    ]  # fmt: skip
    assert read_report_data(folder).curves.keys() == {"loss", "val/accuracy"}
