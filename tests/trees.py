"""Small synthetic data sets, written to disk in the directory trees of the original ones."""

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def random_cloud(count: int, width: int = 3) -> np.ndarray:
    """Random points with six decimals, as in text files, and unit normals if the width is 6."""
    points = RNG.normal(size=(count, 3))
    normals = RNG.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.concatenate([points, normals], 1)[:, :width].round(6)


def write_table(path: Path, table: np.ndarray, separator: str = " ") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{v:.6f}" for v in row) + "\n" for row in table))


MODELNET_CLASSES = ("airplane", "flower_pot", "night_stand")


def write_modelnet(root: Path, *, classes: int = 40, points: int = 60) -> dict[str, np.ndarray]:
    """Write three training shapes and one test shape per class. Returns the tables by name."""
    folder = root / "modelnet40_normal_resampled"
    folder.mkdir(parents=True)
    (folder / f"modelnet{classes}_shape_names.txt").write_text("\n".join(MODELNET_CLASSES) + "\n")
    tables = {}
    for split, numbers in (("train", (1, 2, 3)), ("test", (4,))):
        names = [f"{name}_{number:04d}" for name in MODELNET_CLASSES for number in numbers]
        (folder / f"modelnet{classes}_{split}.txt").write_text("\n".join(names))
        for name in names:
            tables[name] = random_cloud(points, 6)
            write_table(folder / name.rpartition("_")[0] / f"{name}.txt", tables[name], ",")
    return tables


def write_modelnet_cache(root: Path, split: str = "train", count: int = 3) -> list[np.ndarray]:
    folder = root / "modelnet40_normal_resampled"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(MODELNET_CLASSES) + "\n")
    clouds = [random_cloud(8192, 6).astype(np.float32) for _ in range(count)]
    labels = [np.array([row % 3]).astype(np.int32) for row in range(count)]
    path = folder / f"modelnet40_{split}_8192pts_fps.dat"
    path.write_bytes(pickle.dumps([clouds, labels]))
    return clouds


def write_few_shot_fold(root: Path, way: int = 5, shot: int = 2, fold: int = 0) -> dict[str, Any]:
    samples = {
        split: [
            (random_cloud(64, 6).astype(np.float32), label, 7 + label)
            for label in range(way)
            for _ in range(count)
        ]
        for split, count in (("train", shot), ("test", 3))
    }
    path = root / "ModelNetFewshot" / f"{way}way_{shot}shot" / f"{fold}.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(samples))
    return samples


def write_modelnet_hdf5(
    folder: Path, counts: tuple[int, ...] = (4, 3), *, split: str = "train", points: int = 64
) -> list[np.ndarray]:
    """Write numbered files of shapes with normals, as PointNet does. Returns the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for number, count in enumerate(counts):
        rows = np.stack([random_cloud(points, 6).astype(np.float32) for _ in range(count)])
        labels = (np.arange(count, dtype=np.uint8) + len(tables))[:, None]
        with h5py.File(folder / f"ply_data_{split}{number}.h5", "w") as file:
            file["data"], file["normal"], file["label"] = rows[..., :3], rows[..., 3:], labels
            file["faceId"] = np.zeros((count, points), np.int32)
        tables += [*rows]
    return tables


def write_scanobjectnn(
    root: Path,
    count: int = 15,
    *,
    folders: Sequence[str] = ("main_split", "main_split_nobg"),
    suffixes: Sequence[str] = ("", "_augmentedrot_scale75"),
) -> dict[str, np.ndarray]:
    """Write files of some variants. Returns the points by `<folder>/<file>`."""
    points = {}
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for split in ("training", "test"):
            for suffix in suffixes:
                name = f"{folder}/{split}_objectdataset{suffix}.h5"
                points[name] = RNG.normal(size=(count, 2048, 3)).astype(np.float32)
                with h5py.File(root / name, "w") as file:
                    file["data"] = points[name]
                    file["label"] = np.arange(count, dtype=np.int32) % 15
    return points


def write_shapenetpart(root: Path) -> dict[str, np.ndarray]:
    """Write two airplanes and a table per split. Returns the tables by `<synset>/<id>`."""
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (folder / "train_test_split").mkdir(parents=True)
    (folder / "synsetoffset2category.txt").write_text("Airplane\t02691156\nTable\t04379243\n")
    tables = {}
    for split in ("train", "val", "test"):
        names = []
        for synset, parts, number in (("02691156", (0, 4), 0), ("02691156", (0, 4), 1),
                                      ("04379243", (47, 50), 0)):  # fmt: skip
            count = 2100 + 10 * number
            labels = RNG.integers(*parts, count)[:, None].astype(float)
            name = f"{synset}/{split}{number}"
            tables[name] = np.concatenate([random_cloud(count, 6), labels], 1)
            write_table(folder / f"{name}.txt", tables[name])
            names.append(f"shape_data/{name}")
        path = folder / "train_test_split" / f"shuffled_{split}_file_list.json"
        path.write_text(json.dumps(names))
    return tables


def write_s3dis(
    root: Path, areas: tuple[int, ...] = (1, 5), points: int = 1500
) -> dict[str, np.ndarray]:
    """Write one room of 3 m x 2 m per area. Returns the tables by path relative to the root."""
    tables = {}
    for area in areas:
        for name in ("ceiling_1", "chair_1", "chair_2", "floor_1", "stairs_1"):
            table = np.concatenate(
                [
                    (RNG.uniform(size=(points, 3)) * [3, 2, 2.5] + [10, -4, 1]).round(3),
                    RNG.integers(0, 256, (points, 3)),
                ],
                1,
            )
            path = f"Area_{area}/office_1/Annotations/{name}.txt"
            tables[path] = table
            lines = "".join(
                f"{x:.3f} {y:.3f} {z:.3f} {r:.0f} {g:.0f} {b:.0f}\n" for x, y, z, r, g, b in table
            )
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(lines)
    return tables


def write_own_rooms(root: Path, areas: tuple[str, ...] = ("Area_1", "Area_x")) -> Path:
    """Write one room of three objects per area: ground, tree and car."""
    rng = np.random.default_rng(0)
    for area in areas:
        for number, name in enumerate(("ground", "street_tree", "car")):
            table = np.c_[rng.uniform(size=(400, 3)) + number, rng.integers(0, 256, (400, 3))]
            write_table(root / area / "plot_1" / "Annotations" / f"{name}_1.txt", table)
    return root


def write_own_shapes(root: Path, offset: int) -> Path:
    """Write a nut of two parts and a bolt of three for each split; bolts count from `offset`."""
    rng = np.random.default_rng(0)
    (root / "train_test_split").mkdir(parents=True)
    for split in ("train", "test"):
        for name, parts in (("Nut", [0, 1, -1]), ("Bolt", [offset + p for p in range(3)])):
            table = np.c_[rng.normal(size=(30, 3)), np.repeat(parts, 10)]
            write_table(root / name / f"{split}.txt", table)
        (root / "train_test_split" / f"{split}.txt").write_text(f"Nut/{split}\nBolt/{split}.txt\n")
    return root


def write_objaverse(root: Path, split: str = "lvis") -> dict[str, dict[str, Any]]:
    """Write three shapes of two categories as OpenShape does. Returns their content by id."""
    contents, entries = {}, []
    for number, category in enumerate(("teapot", "easy_chair", "teapot")):
        name = f"{number}" * 8
        path = f"objaverse-processed/merged_for_training_final/Objaverse/000-00{number}/{name}.npy"
        contents[name] = {
            "dataset": "Objaverse",
            "id": name,
            "xyz": RNG.normal(size=(10000, 3)).astype(np.float32),
            "rgb": RNG.uniform(size=(10000, 3)).astype(np.float32),
            "text": [f"shape {number}"],
            "blip_caption": f"a drawing of {number}",
            "image_feat": RNG.normal(size=(2, 8)).astype(np.float16),
        }
        (root / path).parent.mkdir(parents=True)
        np.save(root / path, contents[name], allow_pickle=True)
        entries.append({"uid": name, "category": category, "data_path": f"/mnt/data/{path}"})
    (root / "meta_data" / "split").mkdir(parents=True)
    (root / "meta_data" / "split" / f"{split}.json").write_text(json.dumps(entries))
    return contents


def write_meshes(root: Path, count: int = 6) -> None:
    """Write boxes and spheres in several formats, one folder per class."""
    import trimesh

    for number in range(count):
        name, make = [("box", trimesh.creation.box), ("ball", trimesh.creation.icosphere)][
            number % 2
        ]
        suffix = [".ply", ".obj", ".off", ".stl", ".glb"][number % 5]
        (root / name).mkdir(parents=True, exist_ok=True)
        mesh = make()
        mesh.apply_scale(1 + number)
        mesh.export(root / name / f"shape{number}{suffix}")


def write_shape_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "caption", "image"])
        writer.writeheader()
        writer.writerows(rows)


def write_image(path: Path, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels
