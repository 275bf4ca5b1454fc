"""Networks for others: folders, model cards, the Hub without a network, and what info tells."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from lightning import Trainer
from omegaconf import OmegaConf

import recon
from conftest import released_path
from recon.checkpoints.loading import load
from recon.checkpoints.provenance import read_provenance, read_run_provenance, write_environment
from recon.cli.config_dir import conf_dir
from recon.data.datasets.furniture import FurnitureDataModule
from recon.export import export
from recon.info import count_flops, inspect_checkpoint, quote_checkpoint_argument
from recon.layers.grouping import PatchGrouper
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask
from recon.tasks.pretrain import GenerativeStudent

PATH = released_path("recon_pretrain_small.pth")
TOLD = {"num_heads": 3, "num_groups": 64}
CONFIG = {
    "name": "pretrain_here",
    "output_dir": "/home/somebody/secret/run",
    "checkpoint": "/home/somebody/secret/first.ckpt",
    "data": {
        "_target_": "recon.data.datasets.shapenet.ShapeNetDataModule",
        "root": "/home/somebody/secret/ShapeNet55-34",
        "split": "train",
        "batch_size": 128,
    },
    "task": {"_target_": "recon.tasks.pretrain.ReConStudent"},
    "teacher": {"text": {"_target_": "recon.teachers.clip.ClipTextTeacher"}, "image": None},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 5.0e-4},
    "trainer": {"max_epochs": 300},
}
RESULTS = {
    "svm": {"pretrained": [0.7, 0.6, 0.8], "calibrated": [0.6, 0.5, 0.7]},
    "zero_shot": 0.25,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with a checkpoint that Lightning wrote."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    encoder = Encoder(16, depth=1, heads=2, queries=(), patch_widths=(8, 16, 24))
    decoder = Decoder(16, depth=1, heads=2, group_size=8)
    student = GenerativeStudent(
        ReCon(PatchGrouper(8, 8), encoder, decoder, Projections(16, {})),
        reconstruction=ChamferL2(),
        mask=lambda centers: random_mask(centers, ratio=0.5),
        optimizer=torch.optim.AdamW,
    )
    trainer = Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(student, FurnitureDataModule(batch_size=2))
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(CONFIG))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    write_environment(folder)
    return folder


def test_the_card_is_filled_from_the_run(run: Path, tmp_path: Path) -> None:
    recon.save_pretrained(
        run / "checkpoints" / "last.ckpt", tmp_path / "saved", repo_id="me/mine", license="cc0-1.0"
    )
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.license == "cc0-1.0"
    assert card.data.to_dict()["library_name"] == "recon-pointcloud"
    found = {row.metric_type: row for row in card.data.eval_results}
    assert found["linear SVM accuracy"].metric_value == 0.7
    assert "141 test shapes" in found["zero-shot accuracy"].metric_args["protocol"]
    assert found["zero-shot accuracy"].dataset_name == "ShapeNet"
    text = card.text
    for told in (
        'recon.PointEncoder("me/mine")', "| set | ShapeNet |", "| learning rate | 0.0005 |",
        "| teachers | text: ClipTextTeacher |",
        "| linear SVM accuracy | 70.0 % | 60.0 % to 80.0 % |",
        "its batch statistics measured | 60.0 %", "| started from | first.ckpt |", "| processor |",
        "| patches | 8 of 8 points |", "| step | 2 |", "cc0-1.0", "max_epochs: 300",
    ):  # fmt: skip
        assert told in text, told
    assert "secret" not in text + (tmp_path / "saved" / "config.json").read_text()


def test_the_card_says_what_is_unknown(tmp_path: Path) -> None:
    folder = recon.save_pretrained(load(PATH, **TOLD), tmp_path / "saved")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None
    assert card.data.eval_results is None
    for told in ("the data are not known", "Not measured", "Not stated", "Not written down"):
        assert told in card.text, told


def test_what_a_run_left_survives_saving(run: Path, tmp_path: Path) -> None:
    first = read_provenance(run / "checkpoints" / "last.ckpt")
    recon.save_pretrained(run / "checkpoints" / "last.ckpt", tmp_path / "saved")
    again = read_provenance(tmp_path / "saved")
    assert again == {**first, "format": "saved folder"}
    assert again["data"]["set"] == "ShapeNet"
    assert again["hardware"]["packages"]["torch"] == version("torch")


def test_other_files_are_never_written_among(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match=r"holds other files, such as thesis.tex"):
        recon.save_pretrained(load(PATH, **TOLD), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            {"selection": "val", "test_shapes": 9, "tested_on_training_shapes": 2,
             "results": {"one view": {"overall_accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6},
                                      "mean_class_accuracy": 0.25}}},
            {"overall accuracy": (0.5, "one view, eval.selection=val, 9 test shapes, 2 of them"),
             "mean class accuracy": (0.25, "TRAINED ON")},
        ),
        (
            {"selection": "test", "shapes": 3, "instance_miou": 0.8, "class_miou": 0.7},
            {"instance miou": (0.8, "eval.selection=test, 3 shapes"), "class miou": (0.7, "")},
        ),
        (
            {"selection": "area 5", "rooms": 4, "results": {"whole rooms, 1 votes": {
                "miou": 0.3, "macc": 0.4, "overall_accuracy": {"mean": 0.6}}}},
            {"miou": (0.3, "whole rooms, 1 votes, eval.selection=area 5, 4 rooms"),
             "macc": (0.4, ""), "overall accuracy": (0.6, "")},
        ),
    ],
)  # fmt: skip
def test_figures_of_every_task_come_with_their_protocol(
    results: dict[str, Any], expected: dict[str, tuple[float, str]], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = {row["measure"]: row for row in read_run_provenance(tmp_path)["metrics"]}
    assert found.keys() == expected.keys()
    for measure, (value, told) in expected.items():
        assert found[measure]["value"] == value
        assert told in found[measure]["protocol"]


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "environment.json"])
def test_broken_files_of_a_run_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name}: not "):
        read_run_provenance(tmp_path)


def hub_copy(cache: Path, repo: str) -> None:
    """Lay a repository into a cache as huggingface_hub keeps it."""
    folder, commit = cache / f"models--{repo.replace('/', '--')}", "a" * 40
    recon.save_pretrained(load(PATH, **TOLD), folder / "snapshots" / commit, license="mit")
    (folder / "refs").mkdir()
    for reference in ("main", "v1"):
        (folder / "refs" / reference).write_text(commit)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that nothing can be fetched into."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_repositories_of_the_hub_are_read_from_its_cache(offline: Path) -> None:
    hub_copy(offline, "someone/recon-small")
    points = torch.rand(200, 3)
    known = recon.PointEncoder(PATH, **TOLD).encode(points).pooled
    for source in ("someone/recon-small", "someone/recon-small@v1"):
        assert torch.equal(recon.PointEncoder(source).encode(points).pooled, known)
        assert read_provenance(source)["format"] == "saved folder"
    with pytest.raises(FileNotFoundError, match="recon-small@v2: no such file, and not to be had"):
        recon.load("someone/recon-small@v2")


def test_what_cannot_be_had_ends_in_one_line(offline: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nobody/nothing: no such file, and not to") as told:
        recon.load("nobody/nothing")
    assert "\n" not in str(told.value)
    Path("outputs").mkdir()
    for source in ("outputs/gone", "nobody/gone.ckpt", Path("nobody/nothing"), "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such checkpoint"):
            recon.load(source)


def test_uploads_carry_what_was_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def create(self: HfApi, repo_id: str, **told: Any) -> None:
        calls.append((repo_id, told))

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        calls.append((repo_id, {path.name: path.read_text("latin1") for path in
                                Path(folder_path).iterdir()}))  # fmt: skip

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    where = recon.push_to_hub(run / "checkpoints" / "last.ckpt", "me/mine")
    assert where == "https://huggingface.co/me/mine"
    assert calls[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert set(calls[1][1]) == {"config.json", "model.safetensors", "README.md"}
    assert 'PointEncoder("me/mine")' in calls[1][1]["README.md"]
    with pytest.raises(ValueError, match="repo_id=mine: must be <owner>/<name>"):
        recon.push_to_hub(load(PATH, **TOLD), "mine")


def test_a_refused_upload_ends_in_one_line(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (OSError, RuntimeError, httpx.ConnectError):

        def refuse(self: HfApi, *_: Any, kind: type[Exception] = kind, **__: Any) -> None:
            raise kind("401: who are you?\nlong story")

        monkeypatch.setattr(HfApi, "create_repo", refuse)
        with pytest.raises(ConnectionError, match=r"me/mine: not uploaded \(401: who are you\?\)"):
            recon.push_to_hub(load(PATH, **TOLD), "me/mine")


def configured(name: str, **given: Any) -> Any:
    config = OmegaConf.load(Path(conf_dir()) / f"{name}.yaml")
    return OmegaConf.merge(config, given)


def test_info_tells_sizes_and_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run / "checkpoints" / "last.ckpt")
    found = inspect_checkpoint(configured("info", checkpoint=path, json=True))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(found))
    network = load(path)
    assert found["network"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["network"]["flops"] == count_flops(network, 1024) > 0
    assert [row["value"] for row in found["metrics"]] == [0.7, 0.6, 0.25]
    inspect_checkpoint(configured("info", checkpoint=path))
    table = " ".join(capsys.readouterr().out.split())
    for told in (
        "ReCon",
        "ShapeNet",
        "70.0 %",
        "AdamW",
        "a cloud of 1,024 points",
        "8 of 8 points",
    ):
        assert told in table, told


def test_flops_are_those_of_the_matrix_products() -> None:
    """Counted by hand for one block of width d, g patches of k points, h heads."""
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
def test_any_file_name_reaches_info(name: str) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("info", quote_checkpoint_argument([name, "json=true"]))
        assert cfg.checkpoint == name
        assert cfg.json is True
        assert (
            compose(
                "info", quote_checkpoint_argument(["json=true", "checkpoint=x.ckpt"])
            ).checkpoint
            == "x.ckpt"
        )


def test_info_names_other_files(tmp_path: Path) -> None:
    for name in ("recon_cls_small.pth", "recon_seg_small.pth"):
        told = {"num_heads": 3, "num_groups": 32}
        found = inspect_checkpoint(
            configured("info", checkpoint=str(released_path(name)), network=told, json=True)
        )
        assert found["format"] == "released ReCon weights"
        assert found["network"]["for"] == ("classify" if "cls" in name else "part_segment")
    with pytest.raises(ValueError, match="do not tell num_heads"):
        inspect_checkpoint(configured("info", checkpoint=str(PATH)))


def test_exports_to_files_say_what_they_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"checkpoint": str(PATH), "out": str(tmp_path / "out"), "network": TOLD}
    export(configured("export", **given, format="official"))
    assert "num_heads, num_groups and class names are not in this" in capsys.readouterr().out
    again = load(tmp_path / "out" / "weights.pth", **TOLD).state_dict()
    for name, value in load(PATH, **TOLD).state_dict().items():
        assert torch.equal(again[name], value)
    with pytest.raises(FileExistsError, match="weights.pth: there already"):
        export(configured("export", **given, format="official"))
    with pytest.raises(ValueError, match="format=tflite: choose pretrained, official, onnx"):
        export(configured("export", **given, format="tflite"))
    with pytest.raises(ValueError, match="push=true uploads format=pretrained"):
        export(configured("export", **given, format="onnx", push=True))
    with pytest.raises(
        ValueError, match="num_points=50: the network cuts patches that need at lea"
    ):
        export(configured("export", **given, format="torch_export", num_points=50))
