"""The documentation site builds, its tutorials run, and its reference equals conf/."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "config_reference.py"))["render_reference"]()
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert made == page, "run python scripts/config_reference.py"


def test_each_configuration_file_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for path in (ROOT / "conf").rglob("*.yaml"):
        if "parts" not in path.parts:
            assert re.search(rf"[=`./]{path.stem}(\.py)?`", page), path


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run_and_write_to_a_temporary_folder_only(tutorial: Path, tmp_path: Path) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    assert run(str(tutorial), cwd=here, TMPDIR=str(temporary), HF_HUB_OFFLINE="1")
    assert not [*here.iterdir()]


@pytest.mark.slow
def test_tutorials_run_on_a_checkpoint_of_the_size_of_the_demo(tmp_path: Path) -> None:
    options = ["experiment=pretrain_furniture", "trainer.max_steps=1", "~callbacks.report"]
    run("-m", "recon.train", *options, f"output_dir={tmp_path / 'demo'}", cwd=tmp_path)
    checkpoint = str(tmp_path / "demo" / "checkpoints" / "last.ckpt")
    for name in ("features", "zero_shot", "fine_tuning", "own_data"):
        tutorial = ROOT / "docs" / "tutorials" / f"{name}.py"
        assert run(str(tutorial), checkpoint, cwd=tmp_path, TMPDIR=str(tmp_path))


def targets(page: Path) -> set[str]:
    """Return the local targets of a page's links and images."""
    found = re.findall(r'(?:href|src)="([^"]+)"', page.read_text())
    return {unquote(urlsplit(link).path) for link in found if not urlsplit(link).netloc}


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_no_broken_links(tmp_path: Path) -> None:
    site = tmp_path / "site"
    run("-m", "mkdocs", "build", "--strict", "--site-dir", str(site), cwd=ROOT, REPO_URL="")
    pages = [*site.rglob("*.html")]
    assert len(pages) > len([*(ROOT / "docs").rglob("*.md")]) + len(TUTORIALS)
    for page in pages:
        for target in targets(page) - {""}:
            base = site / target.lstrip("/") if target.startswith("/") else page.parent / target
            assert base.resolve().exists(), f"{page.relative_to(site)}: {target}"
    assert "pretrain_furniture" in (site / "index.html").read_text()
    teacher = (site / "tutorials" / "new_teacher" / "index.html").read_text()
    assert "class SizeTeacher" in re.sub("<[^>]+>", "", teacher)
    assert "recon.data.dataset.Cloud" in (site / "api" / "data" / "index.html").read_text()


@pytest.mark.parametrize("address", ["", "https://example.org/owner/recon/"])
def test_links_out_of_docs_point_to_the_repository(address: str) -> None:
    hook = runpy.run_path(str(ROOT / "scripts" / "docs_hooks.py"))["on_page_markdown"]
    page = SimpleNamespace(file=SimpleNamespace(src_uri="data/folder.md"))

    def led(text: str) -> str:
        return hook(text, page, {"repo_url": address}, None)

    outside = "[`x`](https://example.org/owner/recon/blob/main/src/x.py#L1)" if address else "`x`"
    assert led("see [`x`](../../src/x.py#L1).") == f"see {outside}."
    assert led("[a](../../README.md#pretrain)") == "[a](../index.md#pretrain)"
    assert led("[a](../tutorials/own_data.py)") == "[a](../tutorials/own_data.md)"
    for kept in (
        "[a](README.md#safety)",
        "[a](#b)",
        "[a](https://b.org)",
        "```\n[a](../../b)\n```",
    ):
        assert led(kept) == kept
