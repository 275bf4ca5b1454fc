"""Model cards, the Hub's cache and uploads, without a network connection."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import HfApi, ModelCard

import recon
from conftest import released_path
from recon.checkpoints.loading import load
from recon.checkpoints.provenance import read_provenance
from saved_run import write_run

PATH = released_path("recon_pretrain_small.pth")
SETTINGS = {"num_heads": 3, "num_groups": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def test_model_card_describes_the_run(run: Path, tmp_path: Path) -> None:
    recon.save_pretrained(
        run / "checkpoints" / "last.ckpt", tmp_path / "saved", repo_id="me/mine", license="cc0-1.0"
    )
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.license == "cc0-1.0"
    assert card.data.to_dict()["library_name"] == "recon-pointcloud"
    results = {row.metric_type: row for row in card.data.eval_results}
    assert results["linear SVM accuracy"].metric_value == 0.7
    assert "141 test shapes" in results["zero-shot accuracy"].metric_args["protocol"]
    assert results["zero-shot accuracy"].dataset_name == "ShapeNet"
    text = card.text
    for fragment in (
        'recon.PointEncoder("me/mine")', "| set | ShapeNet |", "| learning rate | 0.0005 |",
        "| teachers | text: ClipTextTeacher |",
        "| linear SVM accuracy | 70.0 % | 60.0 % to 80.0 % |",
        "random init, recalibrated BatchNorm | 60.0 %", "| started from | first.ckpt |",
        "| processor |", "| patches | 8 of 8 points |", "| step | 2 |", "cc0-1.0",
        "max_epochs: 300",
    ):  # fmt: skip
        assert fragment in text, fragment
    assert "secret" not in text + (tmp_path / "saved" / "config.json").read_text()


def test_model_card_states_what_is_unknown(tmp_path: Path) -> None:
    folder = recon.save_pretrained(load(PATH, **SETTINGS), tmp_path / "saved")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None
    assert card.data.eval_results is None
    for fragment in ("Unknown: the weights", "Not measured", "Not stated", "Not recorded"):
        assert fragment in card.text, fragment


def test_folders_with_other_files_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match=r"holds other files, such as thesis.tex"):
        recon.save_pretrained(load(PATH, **SETTINGS), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def write_cached_repository(cache: Path, repo_id: str) -> None:
    """Write a repository into a cache with the layout of huggingface_hub."""
    folder, commit = cache / f"models--{repo_id.replace('/', '--')}", "a" * 40
    recon.save_pretrained(load(PATH, **SETTINGS), folder / "snapshots" / commit, license="mit")
    (folder / "refs").mkdir()
    for reference in ("main", "v1"):
        (folder / "refs" / reference).write_text(commit)


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a Hub cache that nothing can be downloaded to."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def test_hub_repositories_are_read_from_the_cache(offline_cache: Path) -> None:
    write_cached_repository(offline_cache, "someone/recon-small")
    points = torch.rand(200, 3)
    expected = recon.PointEncoder(PATH, **SETTINGS).encode(points).pooled
    for checkpoint in ("someone/recon-small", "someone/recon-small@v1"):
        assert torch.equal(recon.PointEncoder(checkpoint).encode(points).pooled, expected)
        assert read_provenance(checkpoint)["format"] == "saved folder"
    with pytest.raises(FileNotFoundError, match="recon-small@v2: no such file, and unavailable on"):
        recon.load("someone/recon-small@v2")


def test_unavailable_repositories_raise_a_one_line_error(offline_cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nobody/nothing: no such file, and unava") as error:
        recon.load("nobody/nothing")
    assert "\n" not in str(error.value)
    Path("outputs").mkdir()
    for checkpoint in ("outputs/gone", "nobody/gone.ckpt", Path("nobody/nothing"), "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such checkpoint"):
            recon.load(checkpoint)


def test_push_to_hub_uploads_the_saved_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def create(self: HfApi, repo_id: str, **options: Any) -> None:
        calls.append((repo_id, options))

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        calls.append((repo_id, {path.name: path.read_text("latin1") for path in
                                Path(folder_path).iterdir()}))  # fmt: skip

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    address = recon.push_to_hub(run / "checkpoints" / "last.ckpt", "me/mine")
    assert address == "https://huggingface.co/me/mine"
    assert calls[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert set(calls[1][1]) == {"config.json", "model.safetensors", "README.md"}
    assert 'PointEncoder("me/mine")' in calls[1][1]["README.md"]
    with pytest.raises(ValueError, match="repo_id=mine: must be <owner>/<name>"):
        recon.push_to_hub(load(PATH, **SETTINGS), "mine")


def test_refused_uploads_raise_a_one_line_error(
    offline_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (OSError, RuntimeError, httpx.ConnectError):

        def refuse(self: HfApi, *_: Any, kind: type[Exception] = kind, **__: Any) -> None:
            raise kind("401: who are you?\nlong story")

        monkeypatch.setattr(HfApi, "create_repo", refuse)
        with pytest.raises(ConnectionError, match=r"me/mine: not uploaded \(401: who are you\?\)"):
            recon.push_to_hub(load(PATH, **SETTINGS), "me/mine")
