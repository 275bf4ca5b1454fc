"""Embed shapes to a table of features: it resumes, stays complete, and its errors name the file."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from pyarrow import parquet

from recon import PointEncoder, __version__
from recon.cli.config_dir import conf_dir
from recon.data.io.feature_table import FEATURE_COLUMNS, read_feature_table, read_table_metadata
from recon.embed import embed
from runs import EMBED_BATCH_SIZE, run_embed, save_network, write_shapes


@pytest.fixture
def shapes(tmp_path: Path) -> list[str]:
    """Options for a folder of shapes and a tiny network."""
    write_shapes(tmp_path / "shapes")
    checkpoint = save_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    return [f"files={tmp_path / 'shapes'}", f"checkpoint={checkpoint}"]


def test_the_table_equals_the_encoders_output(tmp_path: Path, shapes: list[str]) -> None:
    out = tmp_path / "f.parquet"
    assert run_embed(*shapes, f"out={out}") == 10
    names = sorted(p.relative_to(tmp_path / "shapes") for p in tmp_path.glob("shapes/*/*.npy"))
    table = read_feature_table(out, ["pooled", "text_projected"])
    assert table.paths == [name.as_posix() for name in names]
    assert table.labels == [name.parts[0] for name in names]
    clouds = [np.load(tmp_path / "shapes" / name) for name in names]
    assert parquet.read_table(out)["points"].to_pylist() == [len(cloud) for cloud in clouds]
    expected = PointEncoder(tmp_path / "run/checkpoints/last.ckpt").encode(clouds)
    for column, values in table.columns.items():
        assert np.allclose(values, getattr(expected, column).numpy(), atol=1e-5), column
    metadata = read_table_metadata(out)
    assert metadata["columns"] == list(FEATURE_COLUMNS)
    assert metadata["about"]["version"] == __version__
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    variables: dict[str, Any] = {}
    exec(snippet.replace("features.parquet", str(out)), variables)
    assert np.array_equal(variables["features"], table.columns["pooled"])
    points, colors = table.read_previews([3])[0]
    centered = clouds[3] - clouds[3].mean(0)
    assert np.abs(points - centered / np.linalg.norm(centered, axis=1).max()).max() < 1 / 127
    assert colors is None


def test_a_stopped_run_resumes_and_computes_nothing_twice(
    tmp_path: Path, shapes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shapes" / "chair" / "1.npy").write_bytes(b"nonsense")
    run_embed(*shapes, f"out={tmp_path / 'whole.parquet'}")
    encoded: list[int] = []
    original = PointEncoder.encode

    def count_and_stop(self: PointEncoder, points: Any, **options: Any) -> Any:
        if len(encoded) == 1:
            encoded.append(0)
            raise KeyboardInterrupt
        encoded.append(len(points))
        return original(self, points, **options)

    monkeypatch.setattr(PointEncoder, "encode", count_and_stop)
    out = tmp_path / "f.parquet"
    with pytest.raises(KeyboardInterrupt):
        run_embed(*shapes, f"out={out}")
    assert not out.exists()
    run_embed(*shapes, f"out={out}")
    assert sum(encoded) == 9
    stopped, whole = (parquet.read_table(tmp_path / f"{n}.parquet") for n in ("f", "whole"))
    assert stopped.equals(whole, check_metadata=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f.parquet", "run", "shapes", "whole.parquet",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_leaves_only_complete_files(tmp_path: Path, shapes: list[str]) -> None:
    write_shapes(tmp_path / "shapes", 400)
    out = tmp_path / "f.parquet"
    command = [sys.executable, "-m", "recon.embed", *shapes, f"out={out}", "num_workers=0"]
    process = subprocess.Popen(
        [*command, f"batch_size={EMBED_BATCH_SIZE}"], cwd=tmp_path, env=os.environ
    )
    parts = tmp_path / "f.parquet.parts"
    while len([*parts.glob("*.parquet")]) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len([*parts.glob("*.parquet")]) < 100
    assert not out.exists()
    for path in parts.glob("*.parquet"):
        assert len(parquet.read_table(path)) == EMBED_BATCH_SIZE
    run_embed(*shapes, f"out={out}")
    run_embed(*shapes, f"out={tmp_path / 'whole.parquet'}")
    assert parquet.read_table(out).equals(parquet.read_table(tmp_path / "whole.parquet"))


def test_new_and_changed_shapes_are_updated(
    tmp_path: Path, shapes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.parquet"
    run_embed(*shapes, f"out={out}")
    (tmp_path / "shapes" / "lamp" / "0.npy").unlink()
    np.save(tmp_path / "shapes" / "new.npy", np.random.default_rng(5).normal(size=(50, 3)))
    changed = tmp_path / "shapes" / "lamp" / "2.npy"
    np.save(changed, np.random.default_rng(6).normal(size=(60, 3)))
    os.utime(changed, ns=(1, 1))
    assert run_embed(*shapes, f"out={out}") == 10
    table = parquet.read_table(out).to_pydict()
    points = dict(zip(table["path"], table["points"], strict=True))
    assert points["new.npy"] == 50
    assert points["lamp/2.npy"] == 60
    assert "lamp/0.npy" not in points
    monkeypatch.setattr(PointEncoder, "encode", lambda *_, **__: pytest.fail("computed again"))
    assert run_embed(*shapes, f"out={out}") == 10


def test_unreadable_files_are_printed_and_skipped(
    tmp_path: Path, shapes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shapes" / "lamp"
    (folder / "a.ply").write_text("nonsense")
    (folder / "b.obj").touch()
    np.save(folder / "c.npy", np.full((50, 3), np.nan))
    np.save(folder / "d.npy", np.zeros((5, 3)))
    assert run_embed(*shapes, f"out={tmp_path / 'f.parquet'}") == 10
    output = capsys.readouterr().out
    for name in ("a.ply", "b.obj", "c.npy", "d.npy"):
        assert output.count(name) == 1, name
    assert "has 5 points, the network cuts 8 patches of 8: give it at least 8" in output
    assert "4 of 14 cannot be read and were skipped" in output


def test_failures_of_an_earlier_run_are_not_carried_into_the_next(
    tmp_path: Path, shapes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = tmp_path / "broken" / "a.npy", tmp_path / "f.parquet"
    broken.parent.mkdir()
    broken.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"none of the shapes can be read: .*a\.npy"):
        run_embed(f"files={broken.parent}", shapes[1], f"out={out}")
    capsys.readouterr()
    assert run_embed(*shapes, f"out={out}") == 10
    assert "skipped" not in capsys.readouterr().out
    assert read_table_metadata(out)["skipped"] == {}


def test_a_repaired_file_is_read_by_the_next_run(tmp_path: Path, shapes: list[str]) -> None:
    broken, out = tmp_path / "broken" / "a.npy", tmp_path / "f.parquet"
    broken.parent.mkdir()
    broken.write_bytes(b"nonsense")
    options = [f"files={broken.parent}", shapes[1], f"out={out}"]
    with pytest.raises(ValueError, match="none of the shapes can be read"):
        run_embed(*options)
    np.save(broken, np.random.default_rng(0).normal(size=(50, 3)))
    assert run_embed(*options) == 1


def test_another_up_axis_is_refused(tmp_path: Path, shapes: list[str]) -> None:
    run_embed(*shapes, f"out={tmp_path / 'f.parquet'}", "up=Z")
    with pytest.raises(ValueError, match="made with up=z, not with up=auto: choose another file"):
        run_embed(*shapes, f"out={tmp_path / 'f.parquet'}")


def test_other_weights_and_settings_are_refused(tmp_path: Path, shapes: list[str]) -> None:
    out = f"out={tmp_path / 'f.parquet'}"
    run_embed(*shapes, out)
    other = save_network(tmp_path / "other.ckpt", seed=1)
    with pytest.raises(
        ValueError, match=r"f.parquet: was made with weights=\w+, not with weights="
    ):
        run_embed(shapes[0], f"checkpoint={other}", out)
    with pytest.raises(
        ValueError, match="made with num_points=1024, not with num_points=30: choose"
    ):
        run_embed(*shapes, out, "num_points=30")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["files=nowhere"], "nowhere: no such file or folder"),
        (["files=nowhere.csv"], "nowhere.csv: not found"),
        ([], "choose shapes either by files=<folder>"),
        (["files=a", "out=b.csv"], "no such file"),
        (["files=a", "batch_size=0"], "must be an integer of at least 1, got 0"),
    ],
)
def test_invalid_input_raises_errors_that_name_it(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    checkpoint = save_network(tmp_path / "a.ckpt")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("embed", [*overrides, f"checkpoint={checkpoint}"])
    with pytest.raises((ValueError, OSError), match=message):
        embed(cfg)


def test_patterns_and_data_sets_are_embedded(tmp_path: Path, shapes: list[str]) -> None:
    pattern = f"files={tmp_path}/shapes/chair/*.npy"
    assert run_embed(pattern, shapes[1], f"out={tmp_path / 'a.parquet'}") == 5
    table = read_feature_table(tmp_path / "a.parquet", [])
    assert table.paths[0] == f"{tmp_path}/shapes/chair/1.npy"
    data = ["data=furniture", "data.split=test", "num_points=32"]
    assert run_embed(*data, shapes[1], f"out={tmp_path / 'b.parquet'}") == 141
    assert len(set(read_feature_table(tmp_path / "b.parquet", []).labels)) == 26
