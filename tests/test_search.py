"""Search by a cloud and by a sentence: the right shapes, honestly told, wrong input named."""

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
from recon.cli.overrides import quote_override
from recon.data.datasets.furniture import asset_path
from recon.data.io.feature_table import read_feature_table
from recon.data.transforms import AlignUpAxis
from recon.search import search
from recon.tasks.linear_probe import Neighbors
from recon.tasks.retrieval import retrieval_scores
from recon.teachers.cached import CachedTextTeacher
from recon.teachers.tfidf_fallback import encode_sentence
from test_embed import run as embed_shapes
from test_embed import save_network, write_shapes


def run(*told: str) -> Neighbors:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(
            "search", [*map(lambda word: quote_override(word, "query"), told), "device=cpu"]
        )
    return search(cfg)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shapes and their features, by a network whose run tells a cached text teacher."""
    folder = tmp_path_factory.mktemp("search")
    write_shapes(folder / "shapes")
    checkpoint = save_network(folder / "run" / "checkpoints" / "last.ckpt")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        told = compose("train", ["experiment=pretrain_furniture"])
    OmegaConf.save({"teacher": {"text": OmegaConf.to_container(told.teacher.text, resolve=True)}},
                   folder / "run" / "config.yaml")  # fmt: skip
    out = f"out={folder / 'f.parquet'}"
    embed_shapes(f"files={folder / 'shapes'}", f"checkpoint={checkpoint}", out)
    return folder


def options(folder: Path, *told: str) -> list[str]:
    return [f"features={folder / 'f.parquet'}", f"out={folder / 'page.html'}", *told]


def test_a_shape_finds_itself_first(folder: Path) -> None:
    query = folder / "shapes" / "chair" / "3.npy"
    hits = run(*options(folder, f"query={query}", "top=4"))
    table = read_feature_table(folder / "f.parquet", ["pooled"])
    assert table.paths[hits.indices[0, 0]] == "chair/3.npy"
    assert hits.similarity[0, 0] == pytest.approx(1, abs=1e-4)
    assert (np.diff(hits.similarity[0]) <= 0).all()
    page = (folder / "page.html").read_text()
    assert len(re.findall("<canvas ", page)) == 1 + 4
    assert "1. chair/3.npy (chair), 1.000" in page


def test_a_saved_folder_finds_as_its_checkpoint_does(folder: Path) -> None:
    save_pretrained(folder / "run" / "checkpoints" / "last.ckpt", folder / "saved")
    query = f"query={folder / 'shapes' / 'lamp' / '2.npy'}"
    hits = run(*options(folder, query, f"checkpoint={folder / 'saved'}", "top=1"))
    assert hits.similarity[0, 0] == pytest.approx(1, abs=1e-4)


def test_a_turned_query_finds_the_same(folder: Path, tmp_path: Path) -> None:
    points = np.load(folder / "shapes" / "lamp" / "4.npy")
    turned = AlignUpAxis("y", "z")(torch.from_numpy(points)[None])[0]
    np.save(tmp_path / "z.npy", turned.numpy())
    hits = run(*options(folder, f"query={tmp_path / 'z.npy'}", "up=z", "top=1"))
    assert hits.similarity[0, 0] == pytest.approx(1, abs=1e-4)
    assert read_feature_table(folder / "f.parquet", []).paths[hits.indices[0, 0]] == "lamp/4.npy"


def test_a_sentence_finds_by_the_teachers_feature(folder: Path) -> None:
    hits = run(*options(folder, "query=chair", "top=20"))
    teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
    feature = teacher({"text": ["chair"]})[0].numpy()
    known = read_feature_table(folder / "f.parquet", ["text_projected"]).columns["text_projected"]
    cosine = known @ feature / np.linalg.norm(known, axis=1) / np.linalg.norm(feature)
    assert hits.indices[0].tolist() == np.argsort(-cosine).tolist()
    assert np.allclose(hits.similarity[0], np.sort(cosine)[::-1], atol=1e-5)


def test_sentences_that_are_not_cached_are_told_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*options(folder, 'query=two chairs, "old", with (round) legs: $5', "top=1"))
    said = capsys.readouterr().out
    assert "The teacher is a cache that lacks this sentence" in said
    assert "chair" in said.split("stood for it:")[1]
    assert "two chairs, &#34;old&#34;" in (folder / "page.html").read_text()


def test_stand_ins_are_weighted_cached_sentences() -> None:
    teacher = CachedTextTeacher(asset_path("text.safetensors"), 384, standardize=True)
    exact = encode_sentence(teacher, "lamp")
    assert exact.neighbor_weights == {}
    assert torch.equal(exact.feature, teacher({"text": ["lamp"]})[0])
    near = encode_sentence(teacher, "three lamps")
    assert sum(near.neighbor_weights.values()) == pytest.approx(1)
    assert all("lamp" in name for name in [*near.neighbor_weights][:3])
    mean = sum(share * teacher({"text": [n]})[0] for n, share in near.neighbor_weights.items())
    assert torch.allclose(near.feature, mean, atol=1e-5)
    with pytest.raises(ValueError, match="none of them worded like that: use words of theirs"):
        encode_sentence(teacher, "qqqq wxyz")


def test_wrong_input_is_named(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(50, 3)))
    for told, why in {
        ("query=none.ply",): "query=none.ply: no such file",
        (f"query={folder}",): "a folder: name one file, or write a sentence",
        ("query=chair", "top=0"): "top must be a number from 1 on, got 0",
        (f"query={tmp_path}/z.npy", "by=height"): "by=height: choose among pooled",
        ("query=chair", "checkpoint=gone.ckpt"): "gone.ckpt: the checkpoint of these features is",
        ("query=chair", "teacher=untrained"): "its text_projected has 384 features, the query 256",
    }.items():
        with pytest.raises((ValueError, OSError), match=why):
            run(*options(folder, *told))
    other = save_network(tmp_path / "other.ckpt", seed=3)
    with pytest.raises(ValueError, match="other.ckpt: holds other weights"):
        run(*options(folder, f"query={tmp_path}/z.npy", f"checkpoint={other}"))
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="x.parquet: not a readable Parquet table"):
        run(f"features={tmp_path / 'x.parquet'}", "query=chair")
    with pytest.raises(ValueError, match=r"config.yaml: tells no text teacher: choose the one"):
        run(*options(folder, "query=chair", f"checkpoint={other}"))


def test_a_run_names_no_code_to_execute(folder: Path, tmp_path: Path) -> None:
    checkpoint = save_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    bad = {"_target_": "os.system", "command": f"touch {tmp_path / 'ran'}"}
    OmegaConf.save({"teacher": {"text": bad}}, tmp_path / "run" / "config.yaml")
    with pytest.raises(ValueError, match="wants to build|tells no text teacher"):
        run(*options(folder, "query=chair", f"checkpoint={checkpoint}"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    ["a chair, red", 'say "hi"', "it's (so) {odd}: [1]", "back\\slash\\", '\\"', "a=b", "'quoted'"],
)
def test_any_text_passes_hydra(text: str) -> None:
    word = quote_override(f"query={text}", "query")
    parsed = OverridesParser.create().parse_override(word).value()
    value = parsed.text if hasattr(parsed, "text") else parsed
    assert value == text.strip("'")


def test_recall_equals_its_definition() -> None:
    labels = ["a", "a", "b", "c"]
    rows = np.array([[0, 3], [2, 3], [3, 2]])
    found = retrieval_scores(rows, ["a", "a", "c"], labels)
    assert found.recall.mean == pytest.approx(2 / 3)
    assert found.precision.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    # Two of four drawn: with two right ones 1 - 1/6, with one right one 1/2.
    assert found.chance_recall == pytest.approx((5 / 6 + 5 / 6 + 1 / 2) / 3)
    with pytest.raises(ValueError, match="no shape of the gallery is of class 'z'"):
        retrieval_scores(rows, ["a", "z", "c"], labels)
