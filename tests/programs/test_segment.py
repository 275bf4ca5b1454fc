"""Segmented files keep all points and their order, and wrong input raises named errors."""

import json
from pathlib import Path

import laspy
import numpy as np
import pyarrow.parquet as parquet
import pypcd4
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from plyfile import PlyData, PlyElement

from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.reader import METADATA_KEY
from recon.cli.config_dir import conf_dir
from recon.data.datamodule import PointCloudDataModule
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.transforms import AlignUpAxis, UnitSphere
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter
from recon.segment import describe_declared, plan_outputs, segment
from recon.tasks.segment import PartSegmentation

SMALL = ["windows.num_points=64", "windows.batch_size=4"]


def save_segmenter(path: Path, num_objects: int | None, channels: int) -> Path:
    torch.manual_seed(0)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    parts = {"table": [0, 1], "lamp": [2]} if num_objects else {}
    model = Segmenter(
        PatchGrouper(8, 8), encoder, 3, num_objects=num_objects, channels=channels, hidden=16,
        widths=(16, 16, 8), up="y" if num_objects else "z", class_names=["leg", "top", "shade"],
        object_names=list(parts), parts=parts,
    )  # fmt: skip
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, path)
    return path


def run_segment(out: Path, options: list[str]) -> list[Path]:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return segment(compose("segment", [*options, f"out={out}", *SMALL]))


def write_scan(path: Path, count: int = 700) -> np.ndarray:
    """Write a scan in national coordinates, with an intensity; return its vertices."""
    rng = np.random.default_rng(0)
    fields = [*((axis, "f8") for axis in "xyz"), ("intensity", "u2")]
    vertex = np.empty(count, [*fields, *((c, "u1") for c in ("red", "green", "blue"))])
    for axis, offset in zip("xyz", (4_512_345.0, 5_403_210.0, 312.0), strict=True):
        vertex[axis] = offset + rng.random(count) * 2.5
    for name in ("intensity", "red", "green", "blue"):
        vertex[name] = rng.integers(0, 256, count)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))
    return vertex


def test_output_keeps_all_points_fields_and_their_order(tmp_path: Path) -> None:
    model = save_segmenter(tmp_path / "m.ckpt", None, 9)
    vertex = write_scan(tmp_path / "room.ply")
    (written,) = run_segment(
        tmp_path / "out", [f"checkpoint={model}", f"files={tmp_path / 'room.ply'}"]
    )
    ply = PlyData.read(str(written))
    assert ply.comments == ["label 0 leg", "label 1 top", "label 2 shade"]
    labeled = ply["vertex"].data
    for name in ("x", "y", "z", "intensity"):
        assert np.array_equal(labeled[name], vertex[name])
    probabilities = np.load(written.with_suffix(".npz"))["probabilities"]
    assert probabilities.shape == (700, 3)
    assert np.array_equal(probabilities.astype(float).argmax(1), labeled["label"])
    assert probabilities.astype(float).sum(1) == pytest.approx(1, abs=2e-3)
    assert [path.name for path in written.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("suffix", ["ply", "pcd", "las", "npz", "parquet"])
def test_all_formats_keep_properties_and_name_the_labels(suffix: str, tmp_path: Path) -> None:
    model = save_segmenter(tmp_path / "m.ckpt", None, 9)
    vertex = write_scan(tmp_path / "room.ply", 200)
    points = np.stack([vertex[axis] for axis in "xyz"], 1)
    colors = np.stack([vertex[c] for c in ("red", "green", "blue")], 1)
    path = tmp_path / "room.npz"
    np.savez(path, points=points, colors=colors, intensity=vertex["intensity"])
    options = [f"checkpoint={model}", f"files={path}", f"format={suffix}"]
    (written,) = run_segment(tmp_path / "out", options)
    name = "room-probabilities.npz" if suffix == "npz" else "room.npz"
    with np.load(written.with_name(name)) as archive:
        labels = archive["probabilities"].astype(float).argmax(1)
    if suffix == "las":
        las = laspy.read(written)
        assert np.abs(las.xyz - points).max() < 1e-6
        assert np.array_equal(las.classification, labels)
        assert np.array_equal(las.intensity, vertex["intensity"])
        assert las.header.vlrs.get("ClassificationLookupVlr")[0].lookups[2] == "shade"
        return
    if suffix == "parquet":
        table = parquet.read_table(written)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        assert json.loads(table.schema.metadata[b"names"])["2"] == "shade"
    elif suffix == "npz":
        columns = dict(np.load(written))
        columns |= dict(zip("xyz", columns["points"].T, strict=True))
        assert columns["names"].tolist() == ["leg", "top", "shade"]
    elif suffix == "pcd":
        columns = pypcd4.PointCloud.from_path(written).pc_data
        assert b"# label 2 shade\n" in written.read_bytes()
    else:
        columns = PlyData.read(str(written))["vertex"].data
    assert np.array_equal(np.stack([columns[axis] for axis in "xyz"], 1), points)
    assert np.array_equal(columns["intensity"], vertex["intensity"])
    assert np.array_equal(columns["label"], labels)


def test_unknown_output_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format=xyz: choose among las, laz, npz, parquet, pcd"):
        plan_outputs("*.ply", tmp_path, "xyz")


@pytest.mark.parametrize("suffix", ["npy", "xyz"])
def test_other_formats_keep_their_coordinates(suffix: str, tmp_path: Path) -> None:
    model = save_segmenter(tmp_path / "m.ckpt", 2, 3)
    points = np.random.default_rng(1).random((150, 3)) + [4_512_345.0, 0, 10]
    path = tmp_path / f"a.{suffix}"
    np.save(path, points) if suffix == "npy" else np.savetxt(path, points, fmt="%.6f")
    (written,) = run_segment(
        tmp_path / "out", [f"checkpoint={model}", f"files={path}", "object=table"]
    )
    labeled = PlyData.read(str(written))["vertex"].data
    assert np.stack([labeled[axis] for axis in "xyz"], 1) == pytest.approx(points, abs=1e-5)
    assert set(labeled["label"]) <= {0, 1}  # a table has no shade


def test_an_input_file_is_not_overwritten(tmp_path: Path) -> None:
    model, before = save_segmenter(tmp_path / "m.ckpt", None, 3), write_scan(tmp_path / "room.ply")
    with pytest.raises(ValueError, match=r"room.ply: would be overwritten: choose another folder"):
        run_segment(tmp_path, [f"checkpoint={model}", f"files={tmp_path / 'room.ply'}"])
    assert np.array_equal(PlyData.read(str(tmp_path / "room.ply"))["vertex"].data, before)


def test_labels_do_not_depend_on_the_up_axis_of_the_file(tmp_path: Path) -> None:
    model = save_segmenter(tmp_path / "m.ckpt", 2, 3)
    points = np.random.default_rng(1).random((150, 3)).astype(np.float32)
    np.save(tmp_path / "y.npy", points)
    np.save(tmp_path / "z.npy", AlignUpAxis("y", "z")(torch.from_numpy(points)[None])[0].numpy())
    probabilities = []
    for name, options in {"y": [], "z": ["up=z"]}.items():
        files = f"files={tmp_path / name}.npy"
        (path,) = run_segment(
            tmp_path / "out", [f"checkpoint={model}", files, "object=lamp", *options]
        )
        probabilities.append(np.load(path.with_suffix(".npz"))["probabilities"])
    first, second = (values.astype(float) for values in probabilities)
    assert np.allclose(first, second, atol=2e-3)


class SavedShapes(PointCloudDataset):
    """Tables with fewer and with more than 64 points, saved as .npy."""

    ids, classes, labels = ["table20", "table64", "table150"], ("table", "lamp"), np.zeros(3, int)
    point_classes, parts = ("leg", "top", "shade"), {"table": [0, 1], "lamp": [2]}

    def __init__(self, root: Path) -> None:
        self.root = root

    def cloud(self, index: int) -> Cloud:
        points = np.load(self.root / f"{self.ids[index]}.npy")
        return Cloud(points, point_labels=(points[:, 1] > 0).astype(np.int64))


class SavedShapesModule(PointCloudDataModule):
    splits = {"test": ["test"]}

    def read_part(self, part: str) -> SavedShapes:
        return SavedShapes(self.root)


def test_part_iou_of_a_test_is_that_of_segmented_files(tmp_path: Path) -> None:
    checkpoint = save_segmenter(tmp_path / "m.ckpt", 2, 3)
    for name in SavedShapes.ids:
        points = np.random.default_rng(len(name)).normal(size=(int(name.removeprefix("table")), 3))
        np.save(tmp_path / f"{name}.npy", points.astype(np.float32))
    data = SavedShapesModule(
        tmp_path, split="test", test_split="test", keys=PartSegmentation.keys, batch_size=2,
        num_points=64, seed=3, test_transform=UnitSphere(),
    )  # fmt: skip
    task = PartSegmentation(
        load(checkpoint, task="part_segment"), optimizer=torch.optim.SGD, votes=2
    )
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        task, data, verbose=False
    )
    options = ["object=table", "seed=3", "windows.votes=2", f"files={tmp_path}/*.npy"]
    run_segment(tmp_path / "out", [f"checkpoint={checkpoint}", *options])
    for index, name in enumerate(SavedShapes.ids):
        predicted = np.load(tmp_path / "out" / f"{name}.npz")["probabilities"][:, :2].argmax(1)
        labels = SavedShapes(tmp_path).cloud(index).point_labels
        hits = [
            ((predicted == part) & (labels == part)).sum()
            / ((predicted == part) | (labels == part)).sum()
            for part in (0, 1)
        ]
        assert task.compute_results()["ids"][name] == pytest.approx(np.mean(hits))


def test_wrong_input_raises_named_errors(tmp_path: Path) -> None:
    parts, scene = (
        save_segmenter(tmp_path / "p.ckpt", 2, 3),
        save_segmenter(tmp_path / "s.ckpt", None, 6),
    )
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((50, 3)))
    files = f"files={tmp_path / 'a.npy'}"
    for options, message in {
        (f"checkpoint={parts}",): "needs the class of the objects: set object=<one of table, lamp>",
        (f"checkpoint={parts}", "object=chair"): "object='chair' is not one of table, lamp",
        (f"checkpoint={scene}",): "a.npy: has no colors, which the network needs",
    }.items():
        with pytest.raises(ValueError, match=message):
            run_segment(tmp_path / "out", [*options, files])
    np.save(
        tmp_path / "far.npy",
        np.concatenate([np.random.default_rng(2).random((60, 3)), [[5000.0, 0, 0]]]),
    )
    plain = save_segmenter(tmp_path / "c.ckpt", None, 3)
    for options, message in {
        (f"files={tmp_path / 'far.npy'}",): "far.npy: is 5,000 m wide: set scale=0.001",
        (files, "object=lamp"): "object='lamp': the network segments scenes, not objects",
        (files, "device=foo"): "device=foo: unavailable",
    }.items():
        with pytest.raises(ValueError, match=message):
            run_segment(tmp_path / "out", [f"checkpoint={plain}", *options])
    with pytest.raises(FileNotFoundError, match="none.ply: no such file or folder"):
        run_segment(tmp_path / "out", [f"checkpoint={scene}", f"files={tmp_path / 'none.ply'}"])


def test_output_files_are_not_read_as_input(tmp_path: Path) -> None:
    model = save_segmenter(tmp_path / "m.ckpt", None, 3)
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((70, 3)))
    for _ in range(2):
        (written,) = run_segment(tmp_path / "out", [f"checkpoint={model}", f"files={tmp_path}"])
        assert written.name == "a.ply"


def test_outputs_are_planned_for_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("a/x.npy", "b/x.npy", "b/y.xyz", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(name) for name in plan_outputs(str(tmp_path), tmp_path / "out").values()]
    assert names == ["a/x.ply", "b/x.ply", "b/y.ply"]
    assert [str(p) for p in plan_outputs(f"{tmp_path}/b/*.xyz", "out").values()] == ["y.ply"]
    with pytest.raises(
        ValueError, match="would both be written to x.ply: segment them into different"
    ):
        plan_outputs([f"{tmp_path}/a/x.npy", f"{tmp_path}/b/x.npy"], "out")


def test_a_declared_up_axis_and_unit_are_said_where_they_are_applied() -> None:
    cloud = Cloud(np.zeros((1, 3), np.float32), up="y", unit_meters=0.3048)
    turned, scaled = describe_declared(cloud, "z", "auto", None)
    assert turned == "its format or content declares y up: turned to z"
    assert scaled == "its unit is 0.3048 m, as it declares"
    assert describe_declared(cloud, "z", "x", 2.0) == []
    assert describe_declared(cloud, "y", "auto", 1.0) == []
    assert describe_declared(cloud._replace(up="z", unit_meters=1.0), "z", None, None) == []
