"""Files are converted with their properties, and wrong input raises named errors."""

from pathlib import Path

import laspy
import numpy as np
import pytest
import trimesh
from hydra import compose, initialize_config_dir
from plyfile import PlyData

from recon.cli.config_dir import conf_dir
from recon.convert import convert, plan_conversions

POINTS = np.random.default_rng(0).random((30, 3)) + [500_000, 5_500_000, 100]
SCANS = Path(__file__).parents[1] / "data" / "io" / "files"


def run_convert(*options: str) -> list[Path]:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return convert(compose("convert", [*options]))


def write_pcd(path: Path, invalid: int = 0) -> Path:
    points = POINTS.copy()
    points[:invalid] = np.nan
    text = "\n".join(" ".join(map(repr, row)) + f" {n}" for n, row in enumerate(points.tolist()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "VERSION 0.7\nFIELDS x y z ring\nSIZE 8 8 8 2\nTYPE F F F U\nCOUNT 1 1 1 1\n"
        f"WIDTH 30\nHEIGHT 1\nPOINTS 30\nDATA ascii\n{text}\n"
    )
    return path


def test_a_file_keeps_its_place_and_properties(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pcd(tmp_path / "a.pcd", invalid=4)
    (written,) = run_convert(f"in={source}", f"out={tmp_path / 'out' / 'b.las'}")
    las = laspy.read(written)
    assert np.abs(las.xyz - POINTS[4:]).max() < 1e-7
    assert np.array_equal(las["ring"], np.arange(4, 30))
    assert las["ring"].dtype == np.uint16
    printed = capsys.readouterr().out
    assert "4 of 30 points are NaN or infinite: dropped" in printed
    assert "1 file written to" in printed


def test_a_folder_keeps_its_names_and_skips_its_output(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    for name in ("a.pcd", "deep/b.pcd"):
        write_pcd(root / name)
    options = [f"in={root}", f"out={root / 'out'}", "format=ply"]
    written = run_convert(*options)
    assert written == [root / "out" / "a.ply", root / "out" / "deep" / "b.ply"]
    vertex = PlyData.read(str(written[1]))["vertex"].data
    assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], 1), POINTS)
    with pytest.raises(ValueError, match=r"a\.ply: exists \(and 1 others\): set overwrite=true"):
        run_convert(*options)
    assert run_convert(*options, "overwrite=true") == written


def test_points_are_sampled_from_meshes_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trimesh.creation.box().export(tmp_path / "box.stl")
    (written,) = run_convert(
        f"in={tmp_path / 'box.stl'}", f"out={tmp_path / 'box.npz'}", "num_surface_points=200"
    )
    arrays = np.load(written)
    assert arrays["points"].shape == arrays["normals"].shape == (200, 3)
    assert "200 points are sampled from its surface" in capsys.readouterr().out


def test_options_of_recordings_are_used(tmp_path: Path) -> None:
    recording = SCANS / "ros" / "mcap_ros2.mcap"
    (written,) = run_convert(
        f"in={recording}", f"out={tmp_path / 'a.pcd'}", "topic=/points", "frame=2"
    )
    (npz,) = run_convert(f"in={written}", f"out={tmp_path / 'a.npz'}")
    expected = np.load(SCANS / "ros" / "mcap_ros2.npy")[2]
    assert np.array_equal(np.load(npz)["points"], expected[:, :3])
    assert np.array_equal(np.load(npz)["ring"], expected[:, 3])


def test_unreadable_files_are_skipped_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pcd(tmp_path / "in" / "a.pcd")
    (tmp_path / "in" / "b.pcd").write_text("nothing")
    options = [f"in={tmp_path / 'in'}", f"out={tmp_path / 'out'}", "format=parquet"]
    with pytest.raises(ValueError, match=r"b\.pcd: not a readable PCD file"):
        run_convert(*options)
    assert len(run_convert(*options, "on_error=skip", "overwrite=true")) == 1
    assert "1 cannot be read and were skipped" in capsys.readouterr().out


def test_wrong_options_raise_named_errors(tmp_path: Path) -> None:
    source = write_pcd(tmp_path / "a.pcd", invalid=2)
    for options, message in {
        ("format=las", f"out={tmp_path / 'b.ply'}"): "format=las: out=.* leave out format",
        ("format=xyz", f"out={tmp_path / 'b'}"): "format=xyz: choose among las, laz, npz",
        (f"out={source}",): r"a\.pcd: would be overwritten: choose another out=",
        (f"out={tmp_path / 'b.ply'}", "on_nan=error"): "2 of 30 points are NaN or infinite",
        (f"out={tmp_path / 'b.ply'}", "on_nan=maybe"): "on_nan must be drop or error",
        (f"out={tmp_path / 'b.ply'}", "on_error=stop"): "on_error=stop: choose among raise, skip",
    }.items():
        with pytest.raises(ValueError, match=message):
            run_convert(f"in={source}", *options)
    write_pcd(tmp_path / "b.pcd")
    with pytest.raises(ValueError, match=r"both be written to .*c\.ply: set out=<folder>"):
        plan_conversions(str(tmp_path / "*.pcd"), tmp_path / "c.ply", None)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run_convert(f"in={tmp_path / 'none.pcd'}", f"out={tmp_path / 'c.ply'}")
