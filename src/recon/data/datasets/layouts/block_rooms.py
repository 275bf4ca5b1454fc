"""Rooms composed of the blocks of S3DIS's HDF5 files, as PointNet publishes them [1].

[1] Qi et al., arXiv:1612.00593 (PointNet), indoor3d_sem_seg_hdf5_data.
"""

import re
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Int

from recon.data.dataset import Cloud
from recon.data.datasets.hdf5.numbered_files import list_numbered_files
from recon.data.datasets.layouts.room_layout import RoomLayout, convert_labels
from recon.data.io.arrays import read_lines
from recon.data.io.file_checks import RESTORE_HINT, check_file, wrap_read_errors
from recon.data.io.hdf5 import read_hdf5
from recon.data.io.points.cloud import make_cloud

FILE_LIST, ROOM_LIST = "all_files.txt", "room_filelist.txt"


class BlockRooms(RoomLayout):
    """Compose rooms of all their blocks in `ply_data_all_<k>.h5`; room_filelist.txt assigns them.

    A block has x, y and z, of which x and y are relative to the block, colors in [0, 1], and the
    position in the room, each axis in [0, 1], which gives x and y in the room. A room has the
    points that were sampled for its blocks, 4,096 each, not all points of the scan.
    """

    def __init__(self, root: Path) -> None:
        self._files = list_numbered_files(root, "ply_data_all", FILE_LIST)
        rooms = read_lines(root / ROOM_LIST) if self._files and (root / ROOM_LIST).is_file() else []
        self._blocks: dict[str, list[int]] = {}
        for block, line in enumerate(rooms):
            match = re.fullmatch(r"(Area_[^_/]+)_(.+)", line)
            if match is None:
                raise ValueError(
                    f"{root / ROOM_LIST}: {line!r} is not <area>_<room>, such as Area_1_office_1: "
                    f"{RESTORE_HINT}"
                )
            self._blocks.setdefault("/".join(match.groups()), []).append(block)
        super().__init__(root, self._blocks)
        sizes = [_count_blocks(path) for path in self._files] if rooms else []
        self._ends = list(accumulate(sizes))
        if rooms and self._ends[-1] != len(rooms):
            raise ValueError(
                f"{root / ROOM_LIST}: lists the rooms of {len(rooms):,} blocks, the files have "
                f"{self._ends[-1]:,}: {RESTORE_HINT}"
            )

    def _locate(self, room: str) -> dict[Path, Int[np.ndarray, " blocks"]]:
        """Return the files that have blocks of a room, with the rows of the blocks."""
        blocks = np.array(self._blocks[room])
        files = np.searchsorted(self._ends, blocks, side="right")
        starts = np.array([0, *self._ends])
        return {
            self._files[file]: blocks[files == file] - starts[file] for file in np.unique(files)
        }

    def file_paths(self, room: str) -> list[Path]:
        return list(self._locate(room))

    def read(self, room: str) -> Cloud:
        tables, labels = [], []
        for path, rows in self._locate(room).items():
            content = _read_file(path)
            tables.append(content["data"][rows])
            labels.append(content["label"][rows])
        blocks = np.concatenate(tables).astype(np.float64)
        source, flat = str(self.file_paths(room)[0]), blocks.reshape(-1, blocks.shape[-1])
        points = np.concatenate([_restore_xy(blocks).reshape(-1, 2), flat[:, 2:3]], 1)
        cloud = make_cloud(points, source, colors=np.clip(flat[:, 3:6], 0, 1))
        return cloud._replace(
            point_labels=convert_labels(np.concatenate(labels), len(flat), source)
        )


def _count_blocks(path: Path) -> int:
    with wrap_read_errors(path, "HDF5 file"), h5py.File(check_file(path), "r") as file:
        shape = file["data"].shape
        if len(shape) != 3 or shape[2] != 9 or file["label"].shape != shape[:2]:
            raise ValueError(
                f"`data` has shape {shape}, `label` {file['label'].shape}: expected (n, 4096, 9) "
                "and (n, 4096)"
            )
        return shape[0]


@lru_cache(maxsize=1)  # the blocks of a room, and of the next rooms, are in one file
def _read_file(path: Path) -> dict[str, np.ndarray]:
    return read_hdf5(path, ("data", "label"))


def _restore_xy(blocks: Float[np.ndarray, "b n 9"]) -> Float[np.ndarray, "b n 2"]:
    """Return x and y in the room, from their positions in [0, 1] and the extent of the room.

    Within a block, x is the position times the extent, plus a constant. Least squares over all
    blocks of the room give the extent.
    """
    local, position = blocks[..., :2], blocks[..., 6:8]
    local = local - local.mean(1, keepdims=True)
    centered = position - position.mean(1, keepdims=True)
    variance = np.square(centered).sum((0, 1))
    extent = (local * centered).sum((0, 1)) / np.maximum(variance, 1e-12)
    return position * extent
