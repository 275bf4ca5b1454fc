"""ModelNet10 and ModelNet40 as HDF5 files of 2,048 points a shape [1].

[1] Qi et al., arXiv:1612.00593 (PointNet), modelnet40_ply_hdf5_2048.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from recon.data.datasets.hdf5.numbered_files import list_numbered_files
from recon.data.io.arrays import read_json, read_lines
from recon.data.io.file_checks import RESTORE_HINT, check_labels, wrap_read_errors
from recon.data.io.hdf5 import read_hdf5
from recon.utils.printable import check_printable

FOLDERS = ("modelnet{}_ply_hdf5_2048", "modelnet{}_hdf5_2048")
CLASS_NAMES: dict[int, Sequence[str]] = {
    10: (
        "bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table",
        "toilet",
    ),
    40: (
        "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair",
        "cone", "cup", "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar",
        "keyboard", "lamp", "laptop", "mantel", "monitor", "night_stand", "person", "piano",
        "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table", "tent",
        "toilet", "tv_stand", "vase", "wardrobe", "xbox",
    ),
}  # fmt: skip
"""Class names by the number of classes; the labels of all copies have this order."""


class ModelNetRows(NamedTuple):
    """The shapes of one split, one entry each: x y z, or x y z nx ny nz a point."""

    tables: list[np.ndarray]
    labels: Int[np.ndarray, " n"]
    ids: list[str]
    paths: list[Path]


def find_hdf5_folder(root: Path, number_of_classes: int) -> Path | None:
    """Return `root`, or a common folder in it, if it has the HDF5 files of a split, else None."""
    names = [name.format(number_of_classes) for name in FOLDERS]
    folders = (root, *(root / base / name for name in names for base in ("", "ModelNet")))
    return next((f for f in folders if list_hdf5(f, "train") or list_hdf5(f, "test")), None)


def list_hdf5(folder: Path, split: str) -> list[Path]:
    """List the files of a split, by `<split>_files.txt`, or else by their names and numbers."""
    return list_numbered_files(folder, split, f"{split}_files.txt")


def read_class_names(folder: Path, number_of_classes: int) -> Sequence[str]:
    """Read shape_names.txt; use the standard names, with a warning, if it has too many or few.

    Raises ValueError for the names of the other ModelNet.
    """
    path, standard = folder / "shape_names.txt", CLASS_NAMES[number_of_classes]
    names = read_lines(path) if path.is_file() else standard
    if len({*names}) == number_of_classes == len(names):
        return names
    if len(names) in CLASS_NAMES:
        raise ValueError(
            f"{path}: lists {len(names)} classes, not {number_of_classes}: "
            f"set data=modelnet{len(names)}"
        )
    warnings.warn(
        f"{path}: lists {len({*names})} different classes, not {number_of_classes}: using the "
        f"names of ModelNet{number_of_classes}, in alphabetical order",
        stacklevel=2,
    )
    return standard


def read_modelnet_hdf5(folder: Path, split: str, number_of_classes: int) -> ModelNetRows:
    """Read all shapes of a split; raise ValueError or FileNotFoundError that names a bad file."""
    rows = ModelNetRows([], np.empty(0, np.int64), [], [])
    labels = [rows.labels]
    for path in list_hdf5(folder, split):
        content = read_hdf5(path, ("data", "label"), ("normal", "pid", "seg"))
        if {"pid", "seg"} & content.keys():
            raise ValueError(f"{path}: has labels of parts: it is of ShapeNetPart, not ModelNet")
        points, normals = content["data"], content.get("normal")
        if points.ndim != 3 or points.shape[2] < 3:
            raise ValueError(f"{path}: `data` has shape {points.shape}, expected (n, 2048, 3)")
        if normals is not None and normals.shape != points.shape[:2] + (3,):
            raise ValueError(
                f"{path}: `normal` has shape {normals.shape} for `data` {points.shape}: "
                f"{RESTORE_HINT}"
            )
        tables = points if normals is None else np.concatenate([points[..., :3], normals], 2)
        labels.append(check_labels(content["label"], len(points), number_of_classes, str(path)))
        rows.tables.extend(tables)
        rows.ids.extend(_read_ids(path, len(points)) or _number_ids(split, rows.ids, len(points)))
        rows.paths.extend([path] * len(points))
    if not rows.ids:
        raise ValueError(f"{folder}: has no shape in the HDF5 files of split {split!r}")
    return rows._replace(labels=np.concatenate(labels))


def _number_ids(split: str, ids: Sequence[str], count: int) -> list[str]:
    return [f"{split}-{len(ids) + row}" for row in range(count)]


def _read_ids(path: Path, count: int) -> list[str] | None:
    """Read the names of a file's shapes, `<class>_<number>`; None if there is no list of them."""
    name = re.sub(r"_?(\d+)$", r"_\1", path.stem)
    candidates = [path.with_name(f"{stem}_id2file.json") for stem in (name, path.stem)]
    listing = next((candidate for candidate in candidates if candidate.is_file()), None)
    if listing is None:
        return None
    names = read_json(listing)
    with wrap_read_errors(listing, "list of the shapes of an HDF5 file"):
        ids = [PurePosixPath(entry).stem for entry in names]
        if len({*ids}) != count or len(ids) != count:
            raise ValueError(f"it has {len({*ids})} different names for {count} shapes")
    check_printable(ids, listing)
    return ids
