from pathlib import Path

import pytest

from recon.data.datasets.s3dis import S3DISDataModule
from recon.data.datasets.shapenetpart import ShapeNetPartDataModule
from recon.utils.deprecation import renamed_arguments


@renamed_arguments(size="num_points")
def double(num_points: int, *, scale: int = 2) -> int:
    return scale * num_points


def test_new_name_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert double(num_points=3) == double(3) == 6
    assert not recwarn


def test_old_name_works_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="the argument size was renamed: use num_points"):
        assert double(size=3, scale=5) == 15


def test_both_names_raise_type_error() -> None:
    with pytest.raises(TypeError, match="size is the old name of num_points"):
        double(3, size=3, num_points=3)


def test_data_modules_accept_old_names(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="renamed"):
        rooms = S3DISDataModule(tmp_path, test_area=1, size=512, fewest=256, workers=3)
    assert (rooms.make_blocks.keywords["num_points"], rooms.num_workers) == (512, 3)
    assert rooms.make_blocks.keywords["min_points"] == 256
    with pytest.warns(FutureWarning, match="size was renamed: use num_points"):
        assert ShapeNetPartDataModule(tmp_path, size=99).num_points == 99
