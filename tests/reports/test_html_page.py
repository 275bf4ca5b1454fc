import base64
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from recon.reports.html_page import VIEWER_RADIUS, encode_cloud, get_run_name, write_page
from recon.reports.html_sections import build_curve_sections, build_introspection_sections
from recon.reports.report_data import ReportData


def load_in_browser(path: Path) -> str:
    """Return the DOM of a page after its scripts ran, or its text if no browser is installed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return path.read_text()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command = [browser, *flags, f"--user-data-dir={path.parent / 'browser'}", "--dump-dom"]
    return subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_encoded_clouds_decode_to_points_and_colors() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    colors = np.arange(150, dtype=np.uint8).reshape(50, 3)
    cloud = encode_cloud(points, colors)
    decoded = np.frombuffer(base64.b64decode(cloud.points), "<i2").reshape(-1, 3)
    assert np.abs(decoded / 32767 * VIEWER_RADIUS - points).max() < 1e-4
    assert np.array_equal(np.frombuffer(base64.b64decode(cloud.colors), np.uint8), colors.ravel())


def test_names_and_configuration_are_escaped(tmp_path: Path, report_data: ReportData) -> None:
    write_page(
        tmp_path / "a.html",
        "T",
        "L",
        build_introspection_sections(report_data, subject="Shapes"),
        "key: <script>",
    )
    text = (tmp_path / "a.html").read_text()
    assert "a &lt;b&gt;: reconstruction" in text
    assert "key: &lt;script&gt;" in text


def test_run_name_is_the_end_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert get_run_name(Path("outputs/pretrain/2026-01-01")) == "pretrain/2026-01-01"
    assert get_run_name(Path("first")) == f"{tmp_path.name}/first"


@pytest.mark.slow
def test_browser_draws_and_rotates_clouds(tmp_path: Path, report_data: ReportData) -> None:
    page = tmp_path / "a.html"
    write_page(
        page,
        "T",
        "L",
        [
            *build_introspection_sections(report_data, subject="Shapes"),
            *build_curve_sections(report_data),
        ],
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
      document.body.dataset.rotated = all.filter((c, i) => c.toDataURL() !== before[i]).length;
      document.querySelector(".legend span").dispatchEvent(new PointerEvent("pointerenter"));
      document.body.dataset.faint = document.querySelectorAll("circle.faint").length;
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", probe))
    text = load_in_browser(page)
    assert len(re.findall("<canvas ", text)) == 3 + 2
    if shutil.which("chromium"):
        assert 'data-drawn="5"' in text
        assert 'data-rotated="3"' in text  # clouds of one group rotate together
        assert 'data-faint="4"' in text  # two of six dots belong to the first class
