"""S3DIS: 272 scanned rooms in six areas, with 13 point classes, z up, in meters [1].

[1] Armeni et al., 3D Semantic Parsing of Large-Scale Indoor Spaces, CVPR 2016.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.rooms import RoomBlocks, WholeRooms
from recon.data.io.file_checks import RESTORE_HINT, check_cloud
from recon.data.io.text_table import read_table
from recon.utils.deprecation import renamed_arguments
from recon.utils.printable import check_printable

FOLDER = "Stanford3dDataset_v1.2_Aligned_Version"
AREAS = tuple(f"Area_{number}" for number in range(1, 7))
CLASS_ORDERS = {
    "pointnet": (
        "ceiling", "floor", "wall", "beam", "column", "window", "door",
        "table", "chair", "sofa", "bookcase", "board", "clutter",
    ),
    "kpconv": (
        "ceiling", "floor", "wall", "beam", "column", "window", "door",
        "chair", "table", "bookcase", "sofa", "board", "clutter",
    ),
}  # fmt: skip
CHANNELS: Mapping[int, Sequence[str]] = {
    3: (), 6: ("colors",), 9: ("colors", "location"),
}  # fmt: skip
LAYOUT = ExpectedLayout(
    "S3DIS",
    """\
{root}/
  Area_1/<room>/Annotations/<class>_<number>.txt   lines x y z r g b
  ... Area_6                                       (only some areas: data.split=[Area_1,Area_2])""",
    "http://buildingparser.stanford.edu/dataset.html",
)


class S3DISRooms(PointCloudDataset):
    """Read the annotated rooms of one area: meters, z up, uint8 RGB colors, point classes.

    `order` is the order of the classes, of PointNet or KPConv. Other classes (`stairs`) are mapped
    to clutter. Points are ordered by the names of their files.
    """

    up = "z"
    shard_size = 1

    def __init__(self, root: str | Path, area: str, *, order: str = "pointnet") -> None:
        if order not in CLASS_ORDERS:
            raise ValueError(
                f"S3DIS has no class order {order!r}: choose {', '.join(CLASS_ORDERS)}"
            )
        self.root = LAYOUT.find_root(Path(root), area, [FOLDER])
        self.point_classes = CLASS_ORDERS[order]
        rooms = sorted((self.root / area).glob("*/Annotations"))
        if not rooms:
            LAYOUT.require(self.root / area / "<room>" / "Annotations", self.root)
        check_printable((room.parent.name for room in rooms), self.root)
        self.ids = [f"{area}/{room.parent.name}" for room in rooms]
        self._class_indices = {name: index for index, name in enumerate(self.point_classes)}

    def _find_object_files(self, index: int) -> list[Path]:
        # File managers leave hidden files, whose names begin with a dot.
        paths = sorted((self.root / self.ids[index] / "Annotations").glob("[!.]*.txt"))
        if not paths:
            raise ValueError(
                f"{self.root / self.ids[index]}: has no annotated objects: {RESTORE_HINT}"
            )
        check_printable((path.name for path in paths), self.root / self.ids[index])
        return paths

    def file_paths(self, index: int) -> list[Path]:
        return self._find_object_files(index)

    def cloud(self, index: int) -> Cloud:
        tables, labels = [], []
        for path in self._find_object_files(index):
            table = read_table(path, columns=(6,))
            check_cloud(table[:, :3], str(path))
            colors = table[:, 3:]
            if not ((colors >= 0) & (colors <= 255)).all():
                raise ValueError(f"{path}: has colors outside [0, 255]: {RESTORE_HINT}")
            tables.append(table)
            class_index = self._class_indices.get(
                _parse_class_name(path), self._class_indices["clutter"]
            )
            labels.append(np.full(len(table), class_index, dtype=np.int64))
        room = np.concatenate(tables)
        return Cloud(
            room[:, :3].astype(np.float32),
            colors=room[:, 3:].round().astype(np.uint8),
            point_labels=np.concatenate(labels),
        )

    def file_warnings(self) -> list[str]:
        unknown_classes = Counter(
            name
            for index in range(len(self.ids))
            for name in map(_parse_class_name, self._find_object_files(index))
            if name not in self._class_indices
        )
        return [
            f"{count} objects of class {name!r} are mapped to clutter"
            for name, count in unknown_classes.items()
        ]


def _parse_class_name(path: Path) -> str:
    return path.stem.rpartition("_")[0] or path.stem


class S3DISDataModule(PointCloudDataModule):
    """Provide blocks of five areas for training and whole rooms of `test_area` for testing.

    `channels` is 3 (coordinates), 6 (with `colors`) or 9 (with `colors` and `location`).
    `num_points` points are drawn from each block; see `RoomBlocks` for `width`, `min_points` and
    `rate`.
    """

    published_sizes = dict(zip(AREAS, (44, 40, 23, 49, 68, 48), strict=True))

    @renamed_arguments(size="num_points", fewest="min_points")
    def __init__(
        self,
        root: str | Path,
        *,
        test_area: int = 5,
        order: str = "pointnet",
        channels: int = 3,
        num_points: int = 2048,
        width: float = 1.0,
        min_points: int = 1024,
        rate: float = 1.0,
        test_split: str | None = "test",
        **loading: Any,
    ) -> None:
        if channels not in CHANNELS:
            raise ValueError(f"channels must be 3, 6 or 9, got {channels}")
        test_area_name = f"Area_{test_area}"
        if test_area_name not in AREAS:
            raise ValueError(f"test_area must be 1 to 6, got {test_area}")
        super().__init__(root, test_split=test_split, **loading)
        self.splits = {
            "train": [area for area in AREAS if area != test_area_name],
            "test": [test_area_name],
            **{area: [area] for area in AREAS},
        }
        self.order = order
        self.make_blocks = partial(
            RoomBlocks, num_points=num_points, width=width, min_points=min_points, rate=rate
        )
        self.keys |= {"point_labels", *CHANNELS[channels]}

    def settings(self) -> dict[str, Any]:
        return {"order": self.order}

    def read_part(self, part: str) -> S3DISRooms:
        return S3DISRooms(self.root, part, order=self.order)

    def open_split(self, split: Split) -> WholeRooms:
        return WholeRooms(super().open_split(split))

    def train_dataset(self) -> RoomBlocks:
        """Open the training rooms as blocks."""
        names = [self.split] if isinstance(self.split, str) else self.split
        parts = [self.open_part(part) for name in names for part in self.splits[name]]
        blocks = self.make_blocks(parts, skip_unreadable=self.on_error == "skip")
        self.skipped |= dict.fromkeys(blocks.skipped)
        return blocks

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return a loader of whole validation rooms, one per batch, or no loader."""
        if not hasattr(self, "val_dataset"):
            return []
        return self.sequential_dataloader(self.val_dataset, batch_size=1, num_points=None)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return a loader of whole test rooms with all points, one per batch."""
        return self.sequential_dataloader(self.test_dataset, batch_size=1, num_points=None)
