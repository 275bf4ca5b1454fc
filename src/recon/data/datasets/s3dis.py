"""S3DIS: 272 scanned rooms in six areas, with 13 point classes, z up, in meters [1].

Rooms of one's own are read in the same layouts, with classes of one's own.

[1] Armeni et al., 3D Semantic Parsing of Large-Scale Indoor Spaces, CVPR 2016.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from recon.data.datamodule import PointCloudDataModule, Split
from recon.data.dataset import Cloud, PointCloudDataset
from recon.data.datasets.layouts.class_subset import to_names, warn_once
from recon.data.datasets.layouts.find_rooms import find_areas, find_room_layout
from recon.data.datasets.layouts.room_classes import CLASS_ORDERS, resolve_classes
from recon.data.datasets.rooms import RoomBlocks, WholeRooms
from recon.data.prepared.layout import is_prepared, prepared_splits
from recon.utils.deprecation import renamed_arguments

AREAS = tuple(f"Area_{number}" for number in range(1, 7))
CHANNELS: Mapping[int, Sequence[str]] = {
    3: (), 6: ("colors",), 9: ("colors", "location"),
}  # fmt: skip


class S3DISRooms(PointCloudDataset):
    """Read the rooms of one area: meters, z up, RGB colors, point classes.

    `classes` lists the names of the point classes; by default classes.txt beside the areas does,
    or they are S3DIS's in an `order`, of PointNet or KPConv. Points of `ignored_classes` are
    unlabeled (-1). See `find_room_layout` for the layouts and `resolve_classes` for the classes.
    """

    up = "z"
    shard_size = 1

    def __init__(
        self,
        root: str | Path,
        area: str,
        *,
        order: str = "pointnet",
        classes: Sequence[str] | None = None,
        ignored_classes: Sequence[str] = (),
    ) -> None:
        _check_class_options(order, classes)
        self._layout = find_room_layout(Path(root))
        self.root = self._layout.root
        if area not in self._layout.rooms:
            raise FileNotFoundError(
                f"{self.root}: has no {area}, only {', '.join(self._layout.rooms)}: choose among "
                "these by data.test_area and data.split"
            )
        self.ids = self._layout.rooms[area]
        self.room_classes = resolve_classes(
            self._layout, order=order, classes=classes, ignored=ignored_classes
        )
        self.point_classes = self.room_classes.names

    def file_paths(self, index: int) -> list[Path]:
        return self._layout.file_paths(self.ids[index])

    def count_points(self, index: int) -> int | None:
        return self._layout.count_points(self.ids[index])

    def cloud(self, index: int) -> Cloud:
        room = self._layout.read(self.ids[index])
        assert room.point_labels is not None
        source = self._layout.file_paths(self.ids[index])[-1]  # points come first, labels last
        return room._replace(point_labels=self.room_classes.convert(room.point_labels, source))

    def file_warnings(self) -> list[str]:
        return [*self.room_classes.warnings]


def _check_class_options(order: str, classes: Sequence[str] | None) -> None:
    if order not in CLASS_ORDERS:
        raise ValueError(f"S3DIS has no class order {order!r}: choose {', '.join(CLASS_ORDERS)}")
    if classes is not None and order != "pointnet":
        raise ValueError(
            f"data.order={order} orders the classes of S3DIS, data.classes={list(classes)} has its "
            "own order: set one of them"
        )


class S3DISDataModule(PointCloudDataModule):
    """Provide blocks of all areas but one for training and whole rooms of it for testing.

    `test_area` is the held-out area, 5 for Area_5. `classes` and `ignored_classes` are described
    at `S3DISRooms`. `channels` is 3 (coordinates), 6 (with `colors`) or 9 (with `colors` and
    `location`). `num_points` points are drawn from each block; see `RoomBlocks` for `width`,
    `min_points` and `rate`. Warns if areas of S3DIS are missing, or one is trained on and tested.
    """

    published_sizes = dict(zip(AREAS, (44, 40, 23, 49, 68, 48), strict=True))

    @renamed_arguments(size="num_points", fewest="min_points")
    def __init__(
        self,
        root: str | Path,
        *,
        test_area: int | str = 5,
        order: str = "pointnet",
        classes: Sequence[str] | str | None = None,
        ignored_classes: Sequence[str] | str = (),
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
        super().__init__(root, test_split=test_split, **loading)
        self.order, self._warnings = order, set[str]()
        self.classes = None if classes is None else to_names(classes)
        self.ignored_classes = to_names(ignored_classes or ())
        _check_class_options(order, self.classes)
        self.test_area = f"Area_{str(test_area).removeprefix('Area_')}"
        areas = _list_areas(self.root)
        self.areas = areas or list(AREAS)
        self.splits = {
            "train": [area for area in self.areas if area != self.test_area],
            "test": [self.test_area],
            **{area: [area] for area in self.areas},
        }
        self.make_blocks = partial(
            RoomBlocks, num_points=num_points, width=width, min_points=min_points, rate=rate
        )
        self.keys |= {"point_labels", *CHANNELS[channels]}

    def has_published_classes(self) -> bool:
        return {*self.dataset.point_classes} == {*CLASS_ORDERS["pointnet"]}

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"order": self.order}
        if (classes := self._find_own_classes()) is not None:
            settings["classes"] = classes
        if self.ignored_classes:
            settings["ignored_classes"] = self.ignored_classes
        return settings

    def _find_own_classes(self) -> list[str] | None:
        """Return the list of classes, by the option or beside the files; None for S3DIS's."""
        if self.classes is not None or is_prepared(self.root):
            return self.classes
        found = resolve_classes(
            find_room_layout(self.root), order=self.order, ignored=self.ignored_classes
        )
        return list(found.names) if found.is_own else None

    def read_part(self, part: str) -> S3DISRooms:
        rooms = S3DISRooms(
            self.root,
            part,
            order=self.order,
            classes=self.classes,
            ignored_classes=self.ignored_classes,
        )
        if rooms.room_classes.is_own:
            self.published_sizes = {}
        return rooms

    def open_part(self, part: str) -> PointCloudDataset:
        rooms = super().open_part(part)
        if isinstance(rooms, S3DISRooms):
            messages = rooms.room_classes.warnings
            warn_once((f"{self.root}: {message}" for message in messages), self._warnings)
        return rooms

    def open_split(self, split: Split) -> WholeRooms:
        return WholeRooms(super().open_split(split))

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit") and not hasattr(self, "dataset"):
            self._check_areas()
            super().setup(stage)
            self._warn_of_areas()
        super().setup(stage)

    def _check_areas(self) -> None:
        """Raise ValueError if no area is left to train on, or the test area is missing."""
        trained, tested = self._select_areas()
        if missing := [area for area in tested if area not in self.areas]:
            raise ValueError(
                f"{self.root}: has {', '.join(self.areas)}, not the test area {missing[0]}: hold "
                f"out another one, data.test_area={self.areas[-1].removeprefix('Area_')}, or do "
                "not test, data.test_split=null"
            )
        if not trained and self.split == "train":
            raise ValueError(
                f"{self.root}: has only the test area {self.test_area}, none to train on: set "
                f"data.split=[{self.test_area}] to train on it too"
            )

    def _select_areas(self) -> tuple[list[str], list[str]]:
        """Return the areas for training and for testing."""
        names = [self.split] if isinstance(self.split, str) else self.split
        trained = [area for name in names for area in self.splits.get(name, ())]
        return trained, list(self.splits.get(str(self.test_split), ()))

    def _warn_of_areas(self) -> None:
        """Warn of areas that are trained on and tested, and of missing areas of S3DIS."""
        trained, tested = self._select_areas()
        if both := sorted({*trained} & {*tested}):
            warnings.warn(
                f"{', '.join(both)}: trained on and tested, see data.split and data.test_area",
                stacklevel=3,
            )
        is_partial = {*self.dataset.point_classes} == {*CLASS_ORDERS[self.order]} and (
            {*self.areas} < {*AREAS} and self.split == "train"
        )
        if is_partial:
            warnings.warn(
                f"{self.root}: has {', '.join(self.areas)} of S3DIS's six areas: training on "
                f"{', '.join(trained)}, testing on {', '.join(tested) or 'none'}",
                stacklevel=3,
            )

    def train_dataset(self) -> RoomBlocks:
        """Open the training rooms as blocks."""
        names = [self.split] if isinstance(self.split, str) else self.split
        parts = [self.open_part(part) for name in names for part in self.splits[name]]
        self._blocks = self.make_blocks(parts, skip_unreadable=self.on_error == "skip")
        self.skipped |= dict.fromkeys(self._blocks.skipped)
        return self._blocks

    def train_dataloader(self) -> DataLoader[Any]:
        self._blocks.read_rooms()  # before workers copy this process
        self.skipped |= dict.fromkeys(self._blocks.skipped)
        return super().train_dataloader()

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return a loader of whole validation rooms, one per batch, or no loader."""
        if not hasattr(self, "val_dataset"):
            return []
        return self.sequential_dataloader(self.val_dataset, batch_size=1, num_points=None)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return a loader of whole test rooms with all points, one per batch."""
        return self.sequential_dataloader(self.test_dataset, batch_size=1, num_points=None)


def _list_areas(root: Path) -> list[str]:
    """Return the areas in a folder, prepared or not, in order; [] without any."""
    return [name for name in prepared_splits(root) if name] or find_areas(root)
