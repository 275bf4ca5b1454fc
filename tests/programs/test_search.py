"""Search by shape and by sentence: nearest neighbors, approximated sentences, errors."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from recon.checkpoints.hub import save_pretrained
from recon.cli.config_dir import conf_dir
from recon.cli.options.overrides import quote_override
from recon.data.datasets.furniture import asset_path
from recon.data.io.feature_table import read_feature_table
from recon.data.transforms import AlignUpAxis
from recon.search import search
from recon.tasks.linear_probe import Neighbors
from recon.tasks.retrieval import retrieval_scores
from recon.teachers.cached import CachedTextTeacher
from recon.teachers.tfidf_fallback import encode_sentence
from runs import run_embed, save_network, write_shapes
from standins import CALLS


def run_search(*overrides: str) -> Neighbors:
    quoted = [quote_override(override, "query") for override in overrides]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("search", [*quoted, "device=cpu"])
    return search(cfg)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shapes and their features, by a network whose run has a cached text teacher."""
    folder = tmp_path_factory.mktemp("search")
    write_shapes(folder / "shapes")
    checkpoint = save_network(folder / "run" / "checkpoints" / "last.ckpt")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", ["experiment=pretrain_furniture"])
    teacher = OmegaConf.to_container(cfg.teacher.text, resolve=True)
    OmegaConf.save({"teacher": {"text": teacher}}, folder / "run" / "config.yaml")
    out = f"out={folder / 'f.parquet'}"
    run_embed(f"files={folder / 'shapes'}", f"checkpoint={checkpoint}", out)
    return folder


def build_overrides(folder: Path, *overrides: str) -> list[str]:
    return [f"features={folder / 'f.parquet'}", f"out={folder / 'page.html'}", *overrides]


def test_a_shape_is_its_own_nearest_neighbor(folder: Path) -> None:
    query = folder / "shapes" / "chair" / "3.npy"
    neighbors = run_search(*build_overrides(folder, f"query={query}", "top=4"))
    table = read_feature_table(folder / "f.parquet", ["pooled"])
    assert table.paths[neighbors.indices[0, 0]] == "chair/3.npy"
    assert neighbors.similarity[0, 0] == pytest.approx(1, abs=1e-4)
    assert (np.diff(neighbors.similarity[0]) <= 0).all()
    page = (folder / "page.html").read_text()
    assert len(re.findall("<canvas ", page)) == 1 + 4
    assert "1. chair/3.npy (chair), 1.000" in page


def test_a_saved_folder_equals_its_checkpoint(folder: Path) -> None:
    save_pretrained(folder / "run" / "checkpoints" / "last.ckpt", folder / "saved")
    query = f"query={folder / 'shapes' / 'lamp' / '2.npy'}"
    neighbors = run_search(
        *build_overrides(folder, query, f"checkpoint={folder / 'saved'}", "top=1")
    )
    assert neighbors.similarity[0, 0] == pytest.approx(1, abs=1e-4)


def test_the_up_axis_of_the_query_is_aligned(folder: Path, tmp_path: Path) -> None:
    points = np.load(folder / "shapes" / "lamp" / "4.npy")
    rotated = AlignUpAxis("y", "z")(torch.from_numpy(points)[None])[0]
    np.save(tmp_path / "z.npy", rotated.numpy())
    neighbors = run_search(*build_overrides(folder, f"query={tmp_path / 'z.npy'}", "up=z", "top=1"))
    assert neighbors.similarity[0, 0] == pytest.approx(1, abs=1e-4)
    assert (
        read_feature_table(folder / "f.parquet", []).paths[neighbors.indices[0, 0]] == "lamp/4.npy"
    )


def test_a_sentence_is_compared_by_the_teachers_feature(folder: Path) -> None:
    neighbors = run_search(*build_overrides(folder, "query=chair", "top=20"))
    teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
    feature = teacher({"text": ["chair"]})[0].numpy()
    table = read_feature_table(folder / "f.parquet", ["text_projected"])
    features = table.columns["text_projected"]
    cosine = features @ feature / np.linalg.norm(features, axis=1) / np.linalg.norm(feature)
    assert neighbors.indices[0].tolist() == np.argsort(-cosine).tolist()
    assert np.allclose(neighbors.similarity[0], np.sort(cosine)[::-1], atol=1e-5)


def test_an_approximated_sentence_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_search(*build_overrides(folder, 'query=two chairs, "old", with (round) legs: $5', "top=1"))
    output = capsys.readouterr().out
    assert "The teacher is a cache without this sentence" in output
    assert "chair" in output.split("cached sentences with similar words:")[1]
    assert "two chairs, &#34;old&#34;" in (folder / "page.html").read_text()


def test_uncached_sentences_are_averages_of_cached_ones() -> None:
    teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
    exact = encode_sentence(teacher, "lamp")
    assert exact.neighbor_weights == {}
    assert torch.equal(exact.feature, teacher({"text": ["lamp"]})[0])
    near = encode_sentence(teacher, "three lamps")
    assert sum(near.neighbor_weights.values()) == pytest.approx(1)
    assert all("lamp" in name for name in [*near.neighbor_weights][:3])
    mean = sum(share * teacher({"text": [n]})[0] for n, share in near.neighbor_weights.items())
    assert torch.allclose(near.feature, mean, atol=1e-5)
    with pytest.raises(ValueError, match="none has a similar wording: use words of cached"):
        encode_sentence(teacher, "qqqq wxyz")


def test_invalid_input_raises_errors_that_name_it(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(50, 3)))
    for overrides, message in {
        ("query=none.ply",): "query=none.ply: file not found",
        (f"query={folder}",): "is a folder: choose one file, or write a sentence",
        ("query=chair", "top=0"): "top must be an integer of at least 1, got 0",
        (f"query={tmp_path}/z.npy", "by=height"): "by=height: choose among pooled",
        ("query=chair", "checkpoint=gone.ckpt"): "gone.ckpt: the checkpoint of these features is",
        ("query=chair", "teacher=untrained"): "its text_projected has 384 features, the query 256",
    }.items():
        with pytest.raises((ValueError, OSError), match=message):
            run_search(*build_overrides(folder, *overrides))
    other = save_network(tmp_path / "other.ckpt", seed=3)
    with pytest.raises(ValueError, match="other.ckpt: has other weights"):
        run_search(*build_overrides(folder, f"query={tmp_path}/z.npy", f"checkpoint={other}"))
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="x.parquet: not a readable Parquet table"):
        run_search(f"features={tmp_path / 'x.parquet'}", "query=chair")
    with pytest.raises(ValueError, match=r"config.yaml: specifies no text teacher: choose the one"):
        run_search(*build_overrides(folder, "query=chair", f"checkpoint={other}"))


def test_a_runs_config_cannot_execute_code(folder: Path, tmp_path: Path) -> None:
    checkpoint = save_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    CALLS.clear()
    node = {"_target_": "standins.record_call", "argument": 1}
    OmegaConf.save({"teacher": {"text": node}}, tmp_path / "run" / "config.yaml")
    with pytest.raises(ValueError, match="is not allowed|specifies no text teacher"):
        run_search(*build_overrides(folder, "query=chair", f"checkpoint={checkpoint}"))
    assert not CALLS


@pytest.mark.parametrize(
    "text",
    ["a chair, red", 'say "hi"', "it's (so) {odd}: [1]", "back\\slash\\", '\\"', "a=b", "'quoted'"],
)
def test_quoted_queries_pass_hydra_unchanged(text: str) -> None:
    word = quote_override(f"query={text}", "query")
    parsed = OverridesParser.create().parse_override(word).value()
    value = parsed.text if hasattr(parsed, "text") else parsed
    assert value == text.strip("'")


def test_queries_have_the_up_axis_of_the_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "z.parquet"
    checkpoint = folder / "run" / "checkpoints" / "last.ckpt"
    run_embed(f"files={folder / 'shapes'}", f"checkpoint={checkpoint}", f"out={table}", "up=z")
    query = folder / "shapes" / "chair" / "3.npy"
    options = [f"features={table}", f"query={query}", f"out={tmp_path / 'page.html'}"]
    own, other = run_search(*options), run_search(*options, "up=y")
    assert read_feature_table(table, []).paths[int(own.indices[0, 0])] == "chair/3.npy"
    assert float(own.similarity[0, 0]) == pytest.approx(1, abs=1e-5)
    assert float(other.similarity[0].max()) < 0.999


def test_a_missing_table_names_the_program_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.parquet: .*recon\.embed checkpoint="):
        run_search(f"features={tmp_path / 'nothing.parquet'}", "query=a lamp")


def test_recall_equals_its_definition() -> None:
    labels = ["a", "a", "b", "c"]
    rows = np.array([[0, 3], [2, 3], [3, 2]])
    scores = retrieval_scores(rows, ["a", "a", "c"], labels)
    assert scores.recall.mean == pytest.approx(2 / 3)
    assert scores.precision.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    # Two random ones of four rows: with two of the class 1 - 1/6, with one of the class 1/2.
    assert scores.chance_recall == pytest.approx((5 / 6 + 5 / 6 + 1 / 2) / 3)
    with pytest.raises(ValueError, match="no shape of the gallery has class 'z'"):
        retrieval_scores(rows, ["a", "z", "c"], labels)
