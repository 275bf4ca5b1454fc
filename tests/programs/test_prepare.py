"""Check and prepare data sets: reports, written files, and resuming after a kill."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from recon.cli.config_dir import conf_dir
from recon.data.datamodule import PointCloudDataModule
from recon.data.datasets.few_shot import FewShotDataModule
from recon.data.datasets.folder import FolderDataModule
from recon.data.datasets.furniture import FurnitureDataModule
from recon.data.datasets.modelnet import ModelNetDataModule
from recon.data.datasets.objaverse import ObjaverseLVISDataModule
from recon.data.datasets.s3dis import S3DISDataModule
from recon.data.datasets.scanobjectnn import ScanObjectNNDataModule
from recon.data.datasets.shapenet import ShapeNetDataModule
from recon.data.datasets.shapenetpart import ShapeNetPartDataModule
from recon.data.prepared.check_report import CheckReport
from recon.data.prepared.dataset import PreparedDataset
from recon.data.prepared.layout import POINT_FIELDS
from recon.data.prepared.shard import fingerprint_cloud
from recon.prepare import prepare
from standins import CALLS, NamesFunction
from trees import (
    write_few_shot_fold,
    write_meshes,
    write_modelnet,
    write_modelnet_cache,
    write_objaverse,
    write_own_rooms,
    write_own_shapes,
    write_s3dis,
    write_scanobjectnn,
    write_shapenetpart,
)


def run_prepare(*overrides: str) -> CheckReport:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return prepare(compose("prepare", ["num_workers=1", *overrides]))


SETS: dict[str, tuple[type[PointCloudDataModule], object, dict[str, object]]] = {
    "modelnet40": (ModelNetDataModule, write_modelnet, {}),
    "modelnet10": (
        ModelNetDataModule,
        lambda root: write_modelnet(root, classes=10),
        {"number_of_classes": 10},
    ),
    "scanobjectnn": (ScanObjectNNDataModule, write_scanobjectnn, {"variant": "PB_T50_RS"}),
    "shapenetpart": (ShapeNetPartDataModule, write_shapenetpart, {}),
    "s3dis": (S3DISDataModule, write_s3dis, {"order": "kpconv"}),
    "objaverse_lvis": (ObjaverseLVISDataModule, write_objaverse, {}),
    "few_shot": (FewShotDataModule, write_few_shot_fold, {"way": 5, "shot": 2, "fold": 0}),
    "folder": (FolderDataModule, write_meshes, {"num_surface_points": 100}),
}


@pytest.mark.parametrize("name", [*SETS, "shapenet"])
def test_prepared_samples_equal_the_original_ones(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "original"
    if name == "shapenet":
        root = request.getfixturevalue("shapenet_root")
        module, options = ShapeNetDataModule, {}
    else:
        module, write, options = SETS[name]
        write(root)
    out = tmp_path / "prepared"
    overrides = [f"data.{key}={value}" for key, value in options.items()]
    report = run_prepare(f"data={name}", f"data.root={root}", f"out={out}", *overrides)
    assert not report.errors
    before, after = module(root, **options), module(out, **options)
    for split in report.splits:
        one, other = (
            before.open_split(split) if split in before.splits else before.open_part(split),
            after.open_part(split),
        )
        assert isinstance(other, PreparedDataset)
        assert [*other.ids] == [*one.ids]
        assert np.array_equal(other.labels, one.labels)
        assert [*other.classes] == [*one.classes]
        assert [*other.point_classes] == [*one.point_classes]
        assert {k: [*v] for k, v in other.parts.items()} == {k: [*v] for k, v in one.parts.items()}
        assert (other.up, other.mirrored) == (one.up, one.mirrored)
        for row in range(len(one)):
            prepared, original = other.cloud(row), one.cloud(row)
            for key in POINT_FIELDS:
                field, expected = getattr(prepared, key), getattr(original, key)
                assert (field is None) == (expected is None)
                if field is not None:
                    assert field.dtype == expected.dtype
                    assert np.array_equal(field, expected)
            assert other.image_bytes(row) == one.image_bytes(row)
            if name not in ("shapenetpart", "s3dis", "few_shot"):
                assert [*other.texts(row)] == [*one.texts(row)]
                assert other.category(row) == one.category(row)


def test_prepared_rooms_and_shapes_keep_classes_of_ones_own(tmp_path: Path) -> None:
    rooms, shapes = write_own_rooms(tmp_path / "rooms"), write_own_shapes(tmp_path / "shapes", 0)
    (shapes / "parts.json").write_text('{"Nut": ["a", "b"], "Bolt": ["c", "d", "e"]}')
    names = ["ground", "street_tree", "car"]
    report = run_prepare("data=s3dis", f"data.root={rooms}", f"data.classes={names}")
    assert not report.warnings
    run_prepare("data=shapenetpart", f"data.root={shapes}")
    for module, root, options in (
        (S3DISDataModule, rooms, {"classes": names, "test_area": "x"}),
        (ShapeNetPartDataModule, shapes, {"split": "train"}),
    ):
        before = module(root, **options)
        for chosen in (options, {k: v for k, v in options.items() if k != "classes"}):
            after = module(f"{root}-prepared", **chosen)
            one, other = before.open_split("test"), after.open_split("test")
            assert list(one.point_classes) == list(other.point_classes)
            assert np.array_equal(one.cloud(0).point_labels, other.cloud(0).point_labels)
    with pytest.raises(ValueError, match=r"was prepared with classes=\['ground'"):
        S3DISDataModule(f"{rooms}-prepared", classes=["car"]).open_split("Area_1")
    bolts = ShapeNetPartDataModule(f"{shapes}-prepared", classes=["Bolt"]).open_split("test")
    assert bolts.point_classes == ["Bolt/c", "Bolt/d", "Bolt/e"]
    assert bolts.cloud(0).point_labels.tolist() == np.repeat([0, 1, 2], 10).tolist()


def test_prepared_batches_equal_the_original_ones(shapenet_root: Path, tmp_path: Path) -> None:
    run_prepare("data=shapenet", f"data.root={shapenet_root}", f"out={tmp_path / 'p'}")
    batches = []
    for root in (shapenet_root, tmp_path / "p"):
        data = ShapeNetDataModule(
            root, batch_size=8, keys=["text", "image", "category", "label"], num_workers=2
        )
        data.setup("fit")
        batches.append(next(iter(data.train_dataloader())))
    assert batches[0]["id"] == batches[1]["id"]
    assert batches[0]["text"] == batches[1]["text"]
    for key in ("points", "image", "category", "label", "seed"):
        assert batches[0][key].equal(batches[1][key])


def test_settings_that_change_samples_must_match(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "m")
    run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}", "data.num_fps_points=20")
    prepared = tmp_path / "m-prepared"
    assert ModelNetDataModule(prepared, num_fps_points=20).open_split("test").points(0).shape == (
        20,
        3,
    )
    with pytest.raises(
        ValueError,
        match=r"was prepared with num_fps_points=20, not with num_fps_points=None",
    ):
        ModelNetDataModule(prepared).open_split("test")
    with pytest.raises(
        ValueError, match=r"was prepared with data=ModelNetDataModule, not with data=Scan"
    ):
        ScanObjectNNDataModule(prepared).open_split("test")
    with pytest.raises(
        ValueError, match=r"m-prepared: was prepared with .*'num_fps_points': 20.*: choose another"
    ):
        run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}")


def test_the_report_lists_errors_and_warnings(shapenet_root: Path, tmp_path: Path) -> None:
    pc, img = shapenet_root / "shapenet_pc", shapenet_root / "shapenet_img"
    shutil.copy(pc / "02691156-model0.npy", pc / "02691156-model3.npy")  # train and test
    points = np.load(pc / "04379243-model1.npy")
    np.save(pc / "04379243-model0.npy", points[::-1])  # the same cloud in another order
    shutil.copy(img / "02691156-model0.png", img / "02691156-alone.png")
    (img / "02691156-model1.png").unlink()
    (img / "02691156-model2.png").write_bytes(b"no picture")
    (pc / "04379243-model2.npy").write_bytes(b"")
    out = tmp_path / "out"
    report = run_prepare("data=shapenet", f"data.root={shapenet_root}", f"out={out}")
    written = json.loads((out / "report.json").read_text())
    assert written["errors"] == report.errors
    errors, warnings = "\n".join(report.errors), "\n".join(report.warnings)
    assert len(report.errors) == 3
    for part in ("02691156-model1.png: not found",
                 "the image of 02691156-model2: not a readable image",
                 "04379243-model2.npy: is empty (0 bytes)"):  # fmt: skip
        assert part in errors
    for part in ("train: has 6 clouds, the published data set has 41,952",
                 "02691156-alone.png: an image without a cloud",
                 "the same points in two splits: train 02691156-model0, test 02691156-model3",
                 "train: the same points twice: 04379243-model0, 04379243-model1"):  # fmt: skip
        assert part in warnings
    assert report.splits["train"]["clouds"] == 6
    assert report.splits["train"]["read"] == 3
    # A folder without errors corrected cannot be used for training.
    with pytest.raises(ValueError, match=r"out: its preparation was not finished"):
        ShapeNetDataModule(out).open_split("train")


def test_unreadable_samples_are_skipped_on_request(shapenet_root: Path, tmp_path: Path) -> None:
    (shapenet_root / "shapenet_pc" / "02691156-model0.npy").write_bytes(b"")
    out = tmp_path / "out"
    options = ("data=shapenet", f"data.root={shapenet_root}", f"out={out}", "on_error=skip")
    assert len(run_prepare(*options).errors) == 1
    data = ShapeNetDataModule(out).open_split("all")
    assert len(data) == 7
    assert "02691156-model0" not in data.ids
    # With the file corrected, the same command adds it.
    np.save(shapenet_root / "shapenet_pc" / "02691156-model0.npy", np.ones((8192, 3)))
    assert not run_prepare(*options).errors
    assert len(ShapeNetDataModule(out).open_split("all")) == 8


def test_check_only_writes_nothing(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "m")
    before = sorted(tmp_path.rglob("*"))
    report = run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}", "check_only=true")
    assert report.splits["train"]["points"] == [60, 60]
    assert report.splits["train"]["carried"] == ["normals"]
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_prepared_files_are_detected(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "m")
    run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}")
    root = tmp_path / "m-prepared"
    assert not run_prepare("data=modelnet40", f"data.root={root}").errors
    path = root / "train" / "00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert run_prepare("data=modelnet40", f"data.root={root}").errors == [
        f"{path}: its checksum differs: copy it again, or prepare the data set again"
    ]
    path.write_bytes(content[:-7])
    with pytest.raises(ValueError, match=r"00000.safetensors: has \d+ bytes of \d+: copy it again"):
        ModelNetDataModule(root).open_split("train")
    path.unlink()
    with pytest.raises(ValueError, match=r"00000.safetensors: has 0 bytes of"):
        ModelNetDataModule(root).open_split("train")
    for text, message in (
        ("{", "not a readable JSON"),
        ("{}", "not a readable index"),
        ("[]", "not a readable index"),
    ):
        (root / "train" / "index.json").write_text(text)
        with pytest.raises(ValueError, match=rf"index.json: {message}"):
            ModelNetDataModule(root).open_split("train")
    (root / "train" / "index.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"index.json: not found: the prepared splits are test"
    ):
        ModelNetDataModule(root).open_split("train")


def test_clouds_of_different_sizes_and_fields_share_a_shard(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    np.save(root / "a.npy", points)
    np.savez(
        root / "b.npz", points=points[:7], colors=rng.integers(0, 256, (7, 3)).astype(np.uint8)
    )
    np.savez(root / "c.npz", points=points[:9], colors=rng.uniform(size=(9, 3)), normals=points[:9])
    run_prepare("data=folder", f"data.root={root}", "images=false")
    one, other = (
        FolderDataModule(path).open_split("all") for path in (root, tmp_path / "mixed-prepared")
    )
    for row in range(3):
        for field, expected in zip(other.cloud(row), one.cloud(row), strict=True):
            assert (field is None) == (expected is None)
    assert np.array_equal(other.cloud(2).colors, one.cloud(2).colors)
    assert np.allclose(other.cloud(1).colors * 255, one.cloud(1).colors, atol=1e-4)


def test_splits_of_a_folder_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / "own" / split / "chair").mkdir(parents=True)
        for row in range(count):
            np.save(
                tmp_path / "own" / split / "chair" / f"{row}.npy",
                np.random.default_rng(row).normal(size=(9, 3)),
            )
    run_prepare("data=folder", f"data.root={tmp_path / 'own'}", "images=false")
    for split in ("train", "test", "all"):
        one, other = (
            FolderDataModule(tmp_path / n).open_split(split) for n in ("own", "own-prepared")
        )
        assert [*one.ids] == [*other.ids]


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    root = tmp_path / "own"
    (root / "chair").mkdir(parents=True)
    for row in range(3):
        np.save(root / "chair" / f"{row}.npy", np.full((9, 3), row, dtype=np.float32))
    options = ("data=folder", f"data.root={root}", "images=false")
    run_prepare(*options)
    np.save(root / "chair" / "1.npy", np.full((9, 3), 7, dtype=np.float32))
    run_prepare(*options)
    assert FolderDataModule(tmp_path / "own-prepared").open_split("all").points(1).max() == 7


def test_an_incomplete_preparation_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "own"
    root.mkdir()
    np.save(root / "a.npy", np.ones((9, 3)))
    run_prepare("data=folder", f"data.root={root}", "images=false")
    (root / "a.npy").write_bytes(b"")
    np.save(root / "b.npy", np.zeros((9, 3)))
    run_prepare("data=folder", f"data.root={root}", "images=false")
    with pytest.raises(ValueError, match="own-prepared: its preparation was not finished"):
        FolderDataModule(tmp_path / "own-prepared").open_split("all")


def test_invalid_options_are_refused(tmp_path: Path) -> None:
    write_modelnet(tmp_path / "m")
    root = f"data.root={tmp_path / 'm'}"
    for option, message in (
        ("num_workers=-1", "workers must be 0 or more"),
        ("on_error=foo", "on_error must be raise or"),
        ("images=7", "images must be true or false"),
        (f"out={tmp_path / 'm'}", "contains the original files"),
        ("splits=tarin", r"splits=\['tarin'\]: choose among train, test"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run_prepare("data=modelnet40", root, option)
    assert run_prepare("data=modelnet40", root, "splits=test", "check_only=true").splits.keys() == {
        "test"
    }


def test_a_split_without_readable_clouds_raises_value_error(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"all: none of 1 clouds can be read: .*a.npy: is empty"):
        run_prepare("data=folder", f"data.root={tmp_path / 'own'}", "on_error=skip", "images=false")


def test_fingerprints_depend_on_coordinates_but_not_on_order() -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    assert fingerprint_cloud(points) == fingerprint_cloud(points[::-1])
    moved = points.copy()
    moved[3, 1] = np.nextafter(moved[3, 1], np.float32(9))
    assert fingerprint_cloud(points) != fingerprint_cloud(moved)
    swapped = points.copy()
    swapped[[3, 4], 0] = swapped[[4, 3], 0]
    assert fingerprint_cloud(points) != fingerprint_cloud(swapped)
    assert fingerprint_cloud(points) != fingerprint_cloud(points[:, [1, 0, 2]])


def test_a_pickle_that_names_a_function_is_refused_and_not_executed(tmp_path: Path) -> None:
    write_modelnet_cache(tmp_path / "m")
    write_modelnet_cache(tmp_path / "m", "test")
    CALLS.clear()
    path = tmp_path / "m" / "modelnet40_normal_resampled" / "modelnet40_train_8192pts_fps.dat"
    path.write_bytes(pickle.dumps([[NamesFunction()], [np.array([0])]]))
    with pytest.raises(ValueError, match=r"modelnet40_train_8192pts_fps.dat: refused, it contains"):
        run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}")
    assert not CALLS


def test_bundled_data_can_be_checked() -> None:
    report = run_prepare("data=furniture", "data.root=null", "check_only=true", "images=false")
    assert not report.errors
    assert {
        name: split["read"] for name, split in report.splits.items()
    } == FurnitureDataModule.published_sizes


def test_missing_folders_and_files_as_output_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"modelnet40_shape_names.txt: not found"):
        run_prepare("data=modelnet40", f"data.root={tmp_path / 'none'}")
    write_modelnet(tmp_path / "m")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file: is a file: choose a folder by out="):
        run_prepare("data=modelnet40", f"data.root={tmp_path / 'm'}", f"out={tmp_path / 'file'}")


def write_clouds(root: Path, count: int) -> None:
    root.mkdir()
    for row in range(count):
        np.save(
            root / f"{row:04d}.npy",
            np.random.default_rng(row).normal(size=(2000, 3)).astype(np.float32),
        )


def build_command(root: Path, out: Path) -> list[str]:
    options = ["data=folder", f"data.root={root}", f"out={out}", "images=false", "num_workers=2"]
    return [sys.executable, "-m", "recon.prepare", *options]


def run_to_end(command: list[str]) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not process.returncode, process.stderr


def read_contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != ".lock"}


@pytest.mark.slow
def test_workers_exit_with_their_parent_process(tmp_path: Path) -> None:
    write_clouds(tmp_path / "own", 5120)
    process = subprocess.Popen(
        build_command(tmp_path / "own", tmp_path / "out"), stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not any((tmp_path / "out").glob("*/*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _find_processes(str(tmp_path)):
        time.sleep(0.2)
    assert not _find_processes(str(tmp_path))


def _find_processes(word: str) -> list[str]:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_text()
        except OSError:  # it has ended in the meantime
            continue
        if "recon.prepare" in text and word in text:
            commands.append(text)
    return commands


@pytest.mark.slow
def test_killed_runs_leave_only_complete_files(tmp_path: Path) -> None:
    write_clouds(tmp_path / "own", 2560)
    run_to_end(build_command(tmp_path / "own", tmp_path / "whole"))
    complete = read_contents(tmp_path / "whole")
    rng, num_killed, shard_counts = np.random.default_rng(0), 0, []
    for _ in range(12):
        process = subprocess.Popen(
            build_command(tmp_path / "own", tmp_path / "out"), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # Wait until it writes, then for a random part of the second that it takes.
        deadline = time.monotonic() + 60
        while (
            time.monotonic() < deadline
            and process.poll() is None
            and not any((tmp_path / "out").glob("*/*"))
        ):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            num_killed += 1
        process.wait()
        # Files with their final names are complete.
        for name, content in read_contents(tmp_path / "out").items():
            assert name.endswith(".part") or content == complete[name], name
        shard_counts.append(len([*(tmp_path / "out").glob("*/*.safetensors")]))
        if (tmp_path / "out" / "recon.json").exists():
            break
        if rng.random() < 0.5 and len(shard_counts) < 8:  # start over, to be killed early again
            shutil.rmtree(tmp_path / "out")
    run_to_end(build_command(tmp_path / "own", tmp_path / "out"))
    remaining = {
        name: text
        for name, text in read_contents(tmp_path / "out").items()
        if not name.endswith(".part")
    }
    assert remaining == complete
    assert num_killed >= 3
    assert max(shard_counts) > 0
