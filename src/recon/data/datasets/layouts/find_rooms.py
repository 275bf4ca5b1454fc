"""Find the layout of rooms in a folder by its contents."""

from pathlib import Path

from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.layouts.annotated_rooms import AnnotatedRooms
from recon.data.datasets.layouts.array_rooms import FieldRooms, TableRooms
from recon.data.datasets.layouts.block_rooms import BlockRooms
from recon.data.datasets.layouts.room_layout import RoomLayout
from recon.data.io.arrays import read_npy_shape

SUBFOLDERS = (
    "Stanford3dDataset_v1.2_Aligned_Version", "stanford_indoor3d", "s3dis",
    "indoor3d_sem_seg_hdf5_data",
)  # fmt: skip
"""Usual names of the folder of the areas."""
LAYOUTS = (AnnotatedRooms, FieldRooms, TableRooms, BlockRooms)
"""Layouts in order of preference, if a folder has several."""
LAYOUT = ExpectedLayout(
    "S3DIS",
    """\
{root}/
  Area_1/<room>/Annotations/<class>_<number>.txt   lines x y z r g b
or
  Area_1_<room>.npy, or Area_1/<room>.npy          rows x y z r g b label
or
  Area_1/<room>/coord.npy, segment.npy             also color.npy, normal.npy (Pointcept)
or
  ply_data_all_0.h5, ..., room_filelist.txt        blocks of rooms (PointNet)
and Area_2 to Area_6 likewise, or only some of them: data.test_area=2, data.split=[Area_1]""",
    "http://buildingparser.stanford.edu/dataset.html",
)


def find_room_layout(root: Path) -> RoomLayout:
    """Return the rooms of a folder, or of one of its usual subfolders.

    Raises FileNotFoundError with the accepted layouts, or ValueError for rooms in folders that are
    not named as areas.
    """
    for folder in (root, *(root / name for name in SUBFOLDERS)):
        for layout_class in LAYOUTS:
            if folder.is_dir() and (layout := layout_class(folder)).rooms:
                return layout
    _check_area_names(root)
    LAYOUT.require(root / "Area_1", root)
    raise FileNotFoundError(
        f"{root}: has areas without rooms. {LAYOUT.name} is expected as\n"
        f"{LAYOUT.tree.format(root=root)}"
    )


def _check_area_names(root: Path) -> None:
    """Raise ValueError for rooms in folders, or in files, that are not named as areas."""
    folders = {path.parent.parent.name for path in root.glob("*/*/Annotations")}
    folders |= {path.parent.parent.name for path in root.glob("*/*/coord.npy")}
    folders |= {path.parent.name for path in root.glob("*/*.npy") if _is_table(path)}
    if others := sorted(folders):
        raise ValueError(
            f"{root}: the folders of areas must be named Area_<name>: rename {others[0]} to "
            f"Area_{others[0]}"
        )
    if tables := sorted(path.name for path in root.glob("*.npy") if _is_table(path)):
        raise ValueError(
            f"{root}: files of rooms must be named Area_<name>_<room>.npy: rename {tables[0]} to "
            f"Area_1_{tables[0]}, and the rooms to test on to Area_2_<room>.npy, data.test_area=2"
        )


def _is_table(path: Path) -> bool:
    """Tell whether a .npy file has the columns of a room."""
    try:
        return read_npy_shape(path)[1:] in ((4,), (7,))
    except (ValueError, OSError):
        return False


def find_areas(root: Path) -> list[str]:
    """Return the names of the areas in a folder in any layout; [] without them."""
    try:
        return list(find_room_layout(root).rooms)
    except (ValueError, OSError):  # reported when an area is opened
        return []
