"""Find the layout of rooms in a folder by its contents."""

from pathlib import Path

from recon.data.datasets.layout import ExpectedLayout
from recon.data.datasets.layouts.annotated_rooms import AnnotatedRooms
from recon.data.datasets.layouts.array_rooms import FieldRooms, TableRooms
from recon.data.datasets.layouts.block_rooms import BlockRooms
from recon.data.datasets.layouts.room_layout import RoomLayout

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
    if others := sorted(path.parent.parent.name for path in root.glob("*/*/Annotations")):
        raise ValueError(
            f"{root}: the folders of areas must be named Area_<name>: rename {others[0]} to "
            f"Area_{others[0]}"
        )
    LAYOUT.require(root / "Area_1", root)
    raise FileNotFoundError(
        f"{root}: has areas without rooms. {LAYOUT.name} is expected as\n"
        f"{LAYOUT.tree.format(root=root)}"
    )


def find_areas(root: Path) -> list[str]:
    """Return the names of the areas in a folder in any layout; [] without them."""
    try:
        return list(find_room_layout(root).rooms)
    except (ValueError, OSError):  # reported when an area is opened
        return []
