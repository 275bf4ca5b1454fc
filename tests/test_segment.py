"""The command that labels one's own files: nothing lost, nothing moved, wrong input named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from plyfile import PlyData, PlyElement

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.cli.config_dir import conf_dir
from recon.data.transforms import AlignUpAxis
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter
from recon.segment import plan_outputs, segment

SMALL = ["windows.num_points=64", "windows.batch_size=4"]


def save(path: Path, objects: int | None, channels: int) -> Path:
    torch.manual_seed(0)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    parts = {"table": [0, 1], "lamp": [2]} if objects else {}
    model = Segmenter(
        PatchGrouper(8, 8), encoder, 3, num_objects=objects, channels=channels, hidden=16,
        widths=(16, 16, 8), up="y" if objects else "z", class_names=["leg", "top", "shade"],
        object_names=list(parts), parts=parts,
    )  # fmt: skip
    nn = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": nn}, path)
    return path


def run(out: Path, told: list[str]) -> list[Path]:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return segment(compose("segment", [*told, f"out={out}", *SMALL]))


def scan(path: Path, count: int = 700) -> np.ndarray:
    """Write a scan in national coordinates, with an intensity; return its vertices."""
    rng = np.random.default_rng(0)
    fields = [*((axis, "f8") for axis in "xyz"), ("intensity", "u2")]
    vertex = np.empty(count, [*fields, *((c, "u1") for c in ("red", "green", "blue"))])
    for axis, far in zip("xyz", (4_512_345.0, 5_403_210.0, 312.0), strict=True):
        vertex[axis] = far + rng.random(count) * 2.5
    for name in ("intensity", "red", "green", "blue"):
        vertex[name] = rng.integers(0, 256, count)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))
    return vertex


def test_no_point_is_lost_moved_or_repeated(tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt", None, 9)
    vertex = scan(tmp_path / "room.ply")
    (written,) = run(tmp_path / "out", [f"checkpoint={model}", f"files={tmp_path / 'room.ply'}"])
    ply = PlyData.read(str(written))
    assert ply.comments == ["label 0 leg", "label 1 top", "label 2 shade"]
    found = ply["vertex"].data
    for name in ("x", "y", "z", "intensity"):
        assert np.array_equal(found[name], vertex[name])
    held = np.load(written.with_suffix(".npz"))
    assert held["probabilities"].shape == (700, 3)
    assert np.array_equal(held["probabilities"].astype(float).argmax(1), found["label"])
    assert held["probabilities"].astype(float).sum(1) == pytest.approx(1, abs=2e-3)
    assert [path.name for path in written.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("ending", ["npy", "xyz"])
def test_other_formats_keep_their_coordinates(ending: str, tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt", 2, 3)
    points = np.random.default_rng(1).random((150, 3)) + [4_512_345.0, 0, 10]
    path = tmp_path / f"a.{ending}"
    np.save(path, points) if ending == "npy" else np.savetxt(path, points, fmt="%.6f")
    (written,) = run(tmp_path / "out", [f"checkpoint={model}", f"files={path}", "object=table"])
    found = PlyData.read(str(written))["vertex"].data
    assert np.stack([found[axis] for axis in "xyz"], 1) == pytest.approx(points, abs=1e-5)
    assert set(found["label"]) <= {0, 1}  # a table has no shade


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    model, before = save(tmp_path / "m.ckpt", None, 3), scan(tmp_path / "room.ply")
    with pytest.raises(ValueError, match=r"room.ply: would be written over: choose another folder"):
        run(tmp_path, [f"checkpoint={model}", f"files={tmp_path / 'room.ply'}"])
    assert np.array_equal(PlyData.read(str(tmp_path / "room.ply"))["vertex"].data, before)


def test_turned_files_give_the_same_labels(tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt", 2, 3)
    points = np.random.default_rng(1).random((150, 3)).astype(np.float32)
    np.save(tmp_path / "y.npy", points)
    np.save(tmp_path / "z.npy", AlignUpAxis("y", "z")(torch.from_numpy(points)[None])[0].numpy())
    labels = []
    for name, told in {"y": [], "z": ["up=z"]}.items():
        files = f"files={tmp_path / name}.npy"
        (path,) = run(tmp_path / "out", [f"checkpoint={model}", files, "object=lamp", *told])
        labels.append(np.load(path.with_suffix(".npz"))["probabilities"])
    assert np.allclose(labels[0].astype(float), labels[1].astype(float), atol=2e-3)


def test_wrong_input_is_named(tmp_path: Path) -> None:
    parts, scene = save(tmp_path / "p.ckpt", 2, 3), save(tmp_path / "s.ckpt", None, 6)
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((50, 3)))
    files = f"files={tmp_path / 'a.npy'}"
    for told, why in {
        (f"checkpoint={parts}",): "asks what the objects are: object=<one of table, lamp>",
        (f"checkpoint={parts}", "object=chair"): "object='chair' is none of table, lamp",
        (f"checkpoint={scene}",): "a.npy: has no colours, which the network reads",
    }.items():
        with pytest.raises(ValueError, match=why):
            run(tmp_path / "out", [*told, files])
    np.save(
        tmp_path / "far.npy",
        np.concatenate([np.random.default_rng(2).random((60, 3)), [[5000.0, 0, 0]]]),
    )
    plain = save(tmp_path / "c.ckpt", None, 3)
    for told, why in {
        (f"files={tmp_path / 'far.npy'}",): "far.npy: is 5,000 m wide: set scale=0.001",
        (files, "object=lamp"): "object='lamp': the network segments scenes, not objects",
        (files, "device=foo"): "device=foo: not to be had here",
    }.items():
        with pytest.raises(ValueError, match=why):
            run(tmp_path / "out", [f"checkpoint={plain}", *told])
    with pytest.raises(FileNotFoundError, match="none.ply: no such file, nor a folder with"):
        run(tmp_path / "out", [f"checkpoint={scene}", f"files={tmp_path / 'none.ply'}"])


def test_what_was_written_is_not_read_again(tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt", None, 3)
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((70, 3)))
    for _ in range(2):
        (written,) = run(tmp_path / "out", [f"checkpoint={model}", f"files={tmp_path}"])
        assert written.name == "a.ply"


def test_files_are_found_in_folders_and_by_patterns(tmp_path: Path) -> None:
    for name in ("a/x.npy", "b/x.npy", "b/y.xyz", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    places = [str(place) for place in plan_outputs(str(tmp_path), tmp_path / "out").values()]
    assert places == ["a/x.ply", "b/x.ply", "b/y.ply"]
    assert [str(p) for p in plan_outputs(f"{tmp_path}/b/*.xyz", "out").values()] == ["y.ply"]
    with pytest.raises(ValueError, match="would both become x.ply: segment them apart"):
        plan_outputs([f"{tmp_path}/a/x.npy", f"{tmp_path}/b/x.npy"], "out")
