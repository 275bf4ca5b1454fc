"""Custom shapes: folders, tables, splits, classes and images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import Table, parquet

from recon.data.datasets.folder import FolderDataModule, ShapeFolder
from recon.teachers.prompts import build_prompts
from trees import write_image, write_meshes, write_shape_table

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    write_meshes(tmp_path)
    (tmp_path / "readme.txt").write_text("not a shape")
    data = ShapeFolder(tmp_path, num_surface_points=100)
    assert data.classes == ["ball", "box"]
    assert [data.ids[row].split("/")[0] for row in range(6)] == [
        data.classes[n] for n in data.labels
    ]
    assert all(data.cloud(row).points.shape == (100, 3) for row in range(6))
    assert data.texts(0) == build_prompts("ball")
    assert ShapeFolder(tmp_path, classes=["box", "ball"]).labels.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match=r"\['ball'\] are not among the classes \['box'\]: add"):
        ShapeFolder(tmp_path, classes=["box"])


@pytest.mark.parametrize("layout", ["{split}/{name}", "{name}/{split}"])
def test_folders_can_be_splits(layout: str, tmp_path: Path) -> None:
    for name in ("chair", "table"):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / layout.format(split=split, name=name)
            folder.mkdir(parents=True)
            for row in range(count):
                np.save(folder / f"{row}.npy", POINTS + row)
    assert ShapeFolder(tmp_path).classes == ["chair", "table"]
    assert (
        len(ShapeFolder(tmp_path)),
        len(ShapeFolder(tmp_path, "train")),
        len(ShapeFolder(tmp_path, "test")),
    ) == (6, 4, 2)
    with pytest.raises(ValueError, match="no shapes of split 'val': choose train, test, all"):
        ShapeFolder(tmp_path, "val")


def test_symlinks_are_followed_and_hidden_folders_are_skipped(tmp_path: Path) -> None:
    for folder in ("root/chair", "elsewhere", "root/.cache", "root/__MACOSX"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "a.npy", POINTS)
    (tmp_path / "root" / "lamp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "chair" / "circle").symlink_to(tmp_path / "root")
    assert list(ShapeFolder(tmp_path / "root").ids) == ["chair/a.npy", "lamp/a.npy"]


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    for name in ("airplane", "train"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        np.save(tmp_path / "classes" / name / "a.npy", POINTS)
        for split in ("train", "test"):
            (tmp_path / "splits" / split / name).mkdir(parents=True)
            np.save(tmp_path / "splits" / split / name / "a.npy", POINTS)
    assert ShapeFolder(tmp_path / "classes").labels.tolist() == [0, 1]
    data = ShapeFolder(tmp_path / "splits", "train")
    assert data.classes == ["airplane", "train"]
    assert data.labels.tolist() == [0, 1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_list_shapes_labels_captions_and_images(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    for row in range(3):
        np.save(tmp_path / "shapes" / f"{row}.npy", POINTS + row)
    pixels = write_image(tmp_path / "front.png")
    rows = [
        {"path": "shapes/2.npy", "label": "lamp", "caption": "a tall lamp", "image": "front.png"},
        {"path": "shapes/0.npy", "label": "chair", "caption": "", "image": ""},
        {"path": "shapes/1.npy", "label": "", "caption": "a thing", "image": ""},
    ]
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        write_shape_table(path, rows)
    else:
        parquet.write_table(Table.from_pylist(rows), path)
    data = ShapeFolder(path)
    assert np.array_equal(data.cloud(0).points, POINTS + 2)
    assert data.classes == ["chair", "lamp"]
    assert data.labels.tolist() == [1, 0, -1]
    assert [data.texts(0), data.texts(1), data.texts(2)] == [
        ["a tall lamp"],
        build_prompts("chair"),
        ["a thing"],
    ]
    assert np.array_equal(np.array(data.image(0)), pixels)
    with pytest.raises(ValueError, match=r"1.npy: has no class"):
        data.category(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path\n", "lists no shapes"),
        ("file,label\na.ply,x\n", r"has the columns \['file', 'label'\], `path` is missing"),
        ("path\n../outside.ply\n", "line 2: lists '../outside.ply', which is not a path inside"),
        ("path,label\n/etc/passwd,x\n", "line 2: lists '/etc/passwd'"),
        ("path,image\na.ply,../../x.png\n", "line 2: lists '../../x.png'"),
        ("path,label\n,x\n", "line 2 has no path"),
        (
            "path,split\na.ply,holdout\n",
            "line 2: unknown split 'holdout': choose train, val, test",
        ),
        ("path\na.ply\na.ply\n", "lists 'a.ply' more than once"),
        ("path\n\xff\xfe\n", "not a readable table"),
    ],
)
def test_invalid_tables_raise_value_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"list\.csv.*{message}"):
        ShapeFolder(path)


def test_missing_and_empty_folders_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: not found: data.root is a folder of"):
        ShapeFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"contains no shapes; supported formats are .*\.glb"):
        ShapeFolder(tmp_path)
    np.save(tmp_path / "a.npy", POINTS)
    with pytest.raises(
        ValueError, match=r"a.npy: has no caption and no class: .*student=generative"
    ):
        ShapeFolder(tmp_path).texts(0)


def test_image_files_of_the_same_name_are_used_and_others_rendered(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    np.save(tmp_path / "b.npy", POINTS)
    pixels = write_image(tmp_path / "a.png")
    data = ShapeFolder(tmp_path)
    assert np.array_equal(np.array(data.image(0)), pixels)
    rendered = np.array(data.image(1))
    assert rendered.shape == (224, 224, 3)
    assert 0.02 < (rendered < 250).any(-1).mean() < 0.9


def test_clouds_of_different_sizes_are_batched_and_aligned(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.arange(3000.0).reshape(-1, 3))
    np.save(tmp_path / "small.npy", POINTS)
    data = FolderDataModule(tmp_path, num_points=200, up="z", batch_size=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["points"].shape == (2, 200, 3)
    aligned = data.augment(batch, training=True)["points"]
    x, y, z = batch["points"].unbind(-1)
    assert torch.equal(aligned, torch.stack([x, z, -y], -1))
    small = batch["points"][batch["id"].index("small.npy")].numpy()
    assert {tuple(point) for point in small} == {tuple(point) for point in POINTS}
    large = batch["points"][batch["id"].index("large.npy")].numpy()
    assert len({tuple(point) for point in large}) == 200
