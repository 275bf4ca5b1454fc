import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout


@pytest.mark.slow
def test_a_built_wheel_trains_from_any_directory(tmp_path: Path) -> None:
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    run(
        "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path
    )  # fmt: skip
    where = run("-c", "import recon; print(recon.__file__)", cwd=tmp_path, path=site)
    assert Path(where.strip()).is_relative_to(site)
    assert (site / "recon" / "py.typed").is_file()
    options = ["experiment=pretrain_furniture", "debug=tiny"]
    run("-m", "recon.train", *options, cwd=tmp_path, path=site)
    (folder,) = (tmp_path / "outputs" / "pretrain_furniture").iterdir()
    assert {"report.html", "results.json", "config.yaml", "environment.json"} <= {
        p.name for p in folder.iterdir()
    }
