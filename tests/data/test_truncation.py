"""Files of every data set, cut short: reading them succeeds or names a file below the root."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import trimesh
from hydra import compose, initialize_config_dir

from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.reader import METADATA_KEY
from recon.checkpoints.writer import write_pretrained_folder
from recon.cli.config_dir import conf_dir
from recon.data.dataset import PointCloudDataset
from recon.data.datasets.few_shot import FewShotFold
from recon.data.datasets.folder import ShapeFolder
from recon.data.datasets.furniture import ARCHIVE_NAME, Furniture, asset_path, read_archive
from recon.data.datasets.furniture_parts import PARTS_ARCHIVE_NAME, FurnitureParts
from recon.data.datasets.modelnet import ModelNet
from recon.data.datasets.objaverse import OpenShape
from recon.data.datasets.s3dis import S3DISRooms
from recon.data.datasets.scanobjectnn import ScanObjectNN
from recon.data.datasets.shapenet import ShapeNet
from recon.data.datasets.shapenetpart import ShapeNetPart
from recon.data.io.shape import read_shape
from recon.data.prepared.dataset import PreparedDataset
from recon.data.prepared.layout import prepared_splits
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.prepare import prepare
from recon.teachers.cached import FeatureCache, read_cache, write_cache
from trees import (
    write_few_shot_fold,
    write_image,
    write_meshes,
    write_modelnet,
    write_modelnet_cache,
    write_objaverse,
    write_s3dis,
    write_scanobjectnn,
    write_shape_table,
    write_shapenetpart,
)

POINTS = np.random.default_rng(0).normal(size=(60, 3))


def read_all(dataset: PointCloudDataset) -> None:
    """Read all that a training would."""
    for index in range(len(dataset)):
        dataset.cloud(index)
        if type(dataset).texts is not PointCloudDataset.texts:
            dataset.texts(index)
        overrides_image = type(dataset).image is not PointCloudDataset.image
        if overrides_image and not isinstance(dataset, ShapeFolder):
            dataset.image(index)


def write_shapes(root: Path) -> None:
    """Write a box, or points, in each format."""
    box = trimesh.creation.box()
    root.mkdir()
    for suffix in ("ply", "obj", "off", "stl", "glb"):
        box.export(root / f"box.{suffix}")
    (root / "text.ply").write_bytes(box.export(file_type="ply", encoding="ascii"))
    np.save(root / "a.npy", POINTS)
    np.save(root / "object.npy", {"points": POINTS, "colors": POINTS**2}, allow_pickle=True)
    np.savez_compressed(root / "a.npz", points=POINTS, normals=POINTS)
    np.savetxt(root / "a.xyz", POINTS)
    for suffix in ("las", "laz"):
        las = laspy.LasData(laspy.LasHeader(point_format=3, version="1.4"))
        las.x, las.y, las.z = POINTS.T
        las.write(root / f"a.{suffix}")


def write_tables(root: Path) -> None:
    root.mkdir()
    np.save(root / "a.npy", POINTS)
    write_image(root / "a.png")
    row = {"path": "a.npy", "label": "chair", "caption": "one", "image": "a.png"}
    write_shape_table(root / "list.csv", [row])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), root / "list.parquet")


def write_shapenet(root: Path) -> None:
    for folder in ("ShapeNet-55", "shapenet_pc", "shapenet_img"):
        (root / folder).mkdir(parents=True)
    np.save(root / "shapenet_pc" / "02691156-a.npy", POINTS)
    write_image(root / "shapenet_img" / "02691156-a.png")
    for split in ("train", "test"):
        (root / "ShapeNet-55" / f"{split}.txt").write_text("02691156-a.npy\n")
    table = {"catalogue": {"0": 2691156}, "describe": {"0": "airplane"}}
    (root / "shapenet55.json").write_text(json.dumps(table))


def write_furniture(root: Path) -> None:
    """Write a few rows of the bundled data set."""
    root.mkdir()
    models = dict(np.load(asset_path(ARCHIVE_NAME)))
    parts = dict(np.load(asset_path(PARTS_ARCHIVE_NAME)))
    rows = parts["index"][models["split"][parts["index"]] == 0][:4]
    few = {k: v[rows] if len(v) == len(models["split"]) else v for k, v in models.items()}
    np.savez_compressed(root / ARCHIVE_NAME, **few)
    chosen = np.isin(parts["index"], rows)
    parts = {k: v[chosen] if len(v) == len(chosen) else v for k, v in parts.items()}
    np.savez_compressed(root / PARTS_ARCHIVE_NAME, **{**parts, "index": np.arange(4)})


def read_furniture(root: Path) -> None:
    read_archive.cache_clear()
    read_all(Furniture(["train"], root=root))
    read_all(FurnitureParts("train", root=root))


def write_prepared(root: Path) -> None:
    write_meshes(root / "original", 3)
    options = ["data=folder", f"data.root={root / 'original'}", "data.num_surface_points=50"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        prepare(compose("prepare", [*options, f"out={root / 'out'}", "num_workers=1"]))
    shutil.rmtree(root / "original")


def read_prepared(root: Path) -> None:
    for split in prepared_splits(root / "out"):
        dataset = PreparedDataset(root / "out", split)
        for index in range(len(dataset)):
            dataset.cloud(index)
            dataset.image(index)
        dataset.find_damaged_files()


def write_teacher_cache(root: Path) -> None:
    root.mkdir()
    features = torch.randn(3, 2, 4)
    statistics = features.mean((0, 1)), features.std()
    cache = FeatureCache(["a", "b", "c"], features, *statistics, "someone")
    write_cache(root / "image.safetensors", cache)


def network() -> ContrastiveNetwork:
    sizes = {"depth": 1, "heads": 2, "patch_widths": (8, 8, 8)}
    return ContrastiveNetwork(PatchGrouper(8, 6), Encoder(8, **sizes), Projections(8, {"image": 5}))


def write_checkpoints(root: Path) -> None:
    root.mkdir()
    model = network()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    checkpoint = {"state_dict": state, METADATA_KEY: build_metadata(model)}
    torch.save(checkpoint, root / "last.ckpt")
    torch.save(checkpoint, root / "legacy.ckpt", _use_new_zipfile_serialization=False)


def each(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda root: [read(path) for path in sorted(root.iterdir())]


def splits(open_: Callable[..., PointCloudDataset], *names: str) -> Callable[[Path], Any]:
    return lambda root: [read_all(open_(root, name)) for name in names]


SETS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "shapes": (write_shapes, each(lambda path: read_shape(path, 20))),
    "tables": (
        write_tables,
        lambda root: [read_all(ShapeFolder(root / f"list{e}")) for e in (".csv", ".parquet")],
    ),
    "shapenet": (write_shapenet, splits(ShapeNet, "train", "test")),
    "modelnet": (lambda root: write_modelnet(root, points=30), splits(ModelNet, "train", "test")),
    "modelnet_cache": (write_modelnet_cache, splits(ModelNet, "train")),
    "few_shot": (
        write_few_shot_fold,
        lambda root: read_all(FewShotFold(root, "train", way=5, shot=2)),
    ),
    "scanobjectnn": (write_scanobjectnn, splits(ScanObjectNN, "train", "test")),
    "shapenetpart": (write_shapenetpart, splits(ShapeNetPart, "train", "val", "test")),
    "s3dis": (lambda root: write_s3dis(root, points=40), splits(S3DISRooms, "Area_1", "Area_5")),
    "objaverse": (write_objaverse, splits(OpenShape, "lvis")),
    "furniture": (write_furniture, read_furniture),
    "prepared": (write_prepared, read_prepared),
    "teacher_cache": (write_teacher_cache, each(read_cache)),
    "checkpoints": (write_checkpoints, each(load)),
    "saved": (lambda root: write_pretrained_folder(network(), root, {"name": "x"}), load),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETS)
def test_files_that_are_cut_short_are_read_or_named(name: str, tmp_path: Path) -> None:
    root, (write, read) = tmp_path / "root", SETS[name]
    write(root)
    read(root)
    kinds = {
        path.stem[:4] + path.suffix + path.parent.name[:5]: path
        for path in sorted(root.rglob("*.*"))
    }
    for path in filter(Path.is_file, kinds.values()):
        content = path.read_bytes()
        for length in (0, 10, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            message = str(root)
            try:
                read(root)
            except (ValueError, OSError) as error:
                message = str(error)
            assert str(root) in message, f"{path.name} of {length} bytes: {message}"
            assert "Traceback" not in message
        path.write_bytes(content)
