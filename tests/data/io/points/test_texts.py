"""Texts of points: headers, separators, counts, and texts of other kinds."""

from pathlib import Path

import numpy as np
import pytest

from recon.data.datasets.file_list import open_shape_files
from recon.data.datasets.shape_listing import list_shapes
from recon.data.io.points.ptx import read_ptx
from recon.data.io.points.table import ReadOptions
from recon.data.io.points.text_head import is_point_text
from recon.data.io.points.texts import read_text_points
from recon.data.io.shape import find_shape_files, read_shape

XYZ = [[0.5, -1, 2.25], [0.001, 4, 5]]
DIALECTS = {
    "blanks.xyz": "0.5 -1.0 2.25\n0.001 4 5\n",
    "commas.csv": "0.5,-1.0,2.25\r\n1e-3,4,5",
    "semicolons.txt": "x;y;z\n0.5;-1;2.25\n1e-3; 4; 5\n",
    "tabs.asc": "X\tY\tZ\n0.5\t-1\t2.25\n1e-3\t4\t5\n",
    "mac.txt": "x y z\r0.5 -1 2.25\r0.001 4 5\r",
    "bom.csv": "\ufeffx,y,z\n0.5,-1,2.25\n1e-3,4,5\n",
    "quoted.csv": '"x","y","z"\n"0.5","-1","2.25"\n"0.001","4","5"\n',
    "rows_of_r.txt": '"x" "y" "z"\n"1" 0.5 -1 2.25\n"2" 0.001 4 5\n',
    "rows_of_pandas.csv": ",x,y,z\n0,0.5,-1,2.25\n1,0.001,4,5\n",
    "cloudcompare.asc": "//X Y Z Scalar_field\n2\n0.5 -1 2.25 7\n0.001 4 5 8\n",
    "comments.asc": "# a program\n# 2 points\n\n0.5 -1 2.25\n# more\n0.001 4 5\n",
    "count.pts": "2\n0.5 -1 2.25 -2048 1 2 3\n0.001 4 5 2047 4 5 6\n",
    "blocks.pts": "1\n0.5 -1 2.25\n1\n0.001 4 5\n",
    "plain.pts": "0.5 -1 2.25\n0.001 4 5\n",
    "trailing.csv": "x,y,z,\n0.5,-1,2.25,\n0.001,4,5,\n",
    "words.csv": 'id,class,x,y,z\n1,"a chair, red",0.5,-1,2.25\n2,lamp,0.001,4,5\n',
    "units.txt": "Point cloud of a hall\nX[m],Y[m],Z[m],Scan angle\n0.5,-1,2.25,3\n0.001,4,5,4\n",
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_many_programs_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(DIALECTS[name], encoding="utf-8", newline="")
    assert read_text_points(path, ReadOptions()).points.tolist() == XYZ
    assert is_point_text(path)


def test_named_columns_are_kept_and_columns_of_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(DIALECTS["words.csv"])
    found = read_text_points(path, ReadOptions())
    assert found.extra["id"].tolist() == [1, 2]
    assert found.notes == ("columns of text are left out: 2",)
    path.write_text("x,y,z,intensity,label\n1,2,3,,5\n4,5,6,0.5,\n")
    found = read_text_points(path, ReadOptions())
    np.testing.assert_array_equal(found.extra["intensity"], [np.nan, 0.5])
    np.testing.assert_array_equal(found.extra["label"], [5, np.nan])
    path.write_text("point_id,longitude,latitude,height\n1,11.5,48.1,500\n2,11.6,48.2,501\n")
    with pytest.raises(ValueError, match=r"a\.csv: .*degrees: project them to meters"):
        read_text_points(path, ReadOptions())


def test_leica_pts_columns_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.pts"
    path.write_text("2\n0.5 -1 2.25 40 1 2 3\n0.001 4 5 50 4 5 6\n")
    found = read_text_points(path, ReadOptions())
    assert found.colors.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.extra["intensity"].tolist() == [40, 50]
    path.write_text("3\n0.5 -1 2.25\n0.001 4 5\n")
    with pytest.raises(ValueError, match=r"a\.pts: .*ends after 2 of 3 points"):
        read_shape(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\nwater\nO 0.0 0.1 0.2\nH 0.7 0.0 0.0\nH -0.7 0.0 0\n", "atoms"),
        ('2\nLattice="1 0 0 0 1 0 0 0 1" Properties=pos:R:3\nC 0 0 0\nC 1 1 1\n', "atoms"),
        ("2\n\n6 0.0 0.1 0.2\n8 0.7 0.0 0.0\n", "atoms"),
        ("C 0.0 0.1 0.2\nH1 0.7 0.0 0.0\nH2 0.7 0.0 1.0\n", "atoms"),
        ("ncols 3\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2 3\n4 5 6\n", "ESRI grid"),
        ("version: 1\nn_points: 68\n{\n1 2\n3 4\n}\n", "marks in an image"),
        ("1,5;2,25;3,75\n4,5;5,5;6,5\n", "decimal commas"),
        ("Dear reader,\n1 2 apples\n", "no lines of numbers, at least x, y and z"),
        ("\n\n", "no lines of numbers, at least x, y and z"),
        ("1 2\n3 4\n", "no lines of numbers, at least x, y and z"),
    ],
)  # fmt: skip
def test_texts_of_other_kinds_are_refused_as_what_they_are(
    text: str, message: str, tmp_path: Path
) -> None:
    for suffix in ("xyz", "txt"):
        path = tmp_path / f"a.{suffix}"
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.{suffix}: .*{message}"):
            read_shape(path)
        assert not is_point_text(path) or message == "decimal commas"


def test_folders_hold_texts_of_points_only(tmp_path: Path) -> None:
    texts = {
        "README.txt": "All shapes of this folder.\n1. chairs\n2. lamps\n3. tables\n",
        "train.txt": "chair/a\nchair/b\n",
        "labels.csv": "path,label\na.txt,chair\nb.txt,lamp\n",
        "metrics.csv": "epoch,loss,accuracy\n1,0.5,0.25\n2,0.25,0.5\n",
        "volumes.csv": "path,faces,area,volume\na.txt,3,4.5,6\nb.txt,4,5,6\n",
        "numbers.txt": "0\n1\n2\n3\n",
        "pose.txt": "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",
        "a.txt": "0 0 1\n0 1 0\n1 0 0\n1 1 1\n",
        "b.csv": "x,y,z\n0,0,1\n0,1,0\n1,0,0\n",
        "c.ptx": build_ptx(),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.bin").write_bytes(b"\x80\x02" * 50)
    np.zeros((4, 4), "<f4").tofile(tmp_path / "zeros.bin")
    np.ones((4, 4), "<f4").tofile(tmp_path / "scan.bin")
    expected = ["a.txt", "b.csv", "c.ptx", "scan.bin"]
    assert sorted(str(name) for name in find_shape_files(tmp_path).values()) == expected
    assert sorted(entry.name for entry in list_shapes(tmp_path)) == expected
    (tmp_path / "model.gltf").write_text("{}")
    assert "scan.bin" not in {str(name) for name in find_shape_files(tmp_path).values()}


def test_a_csv_file_is_a_table_of_shapes_or_a_cloud(tmp_path: Path) -> None:
    (tmp_path / "cloud.csv").write_text("x,y,z\n0,0,1\n0,1,0\n1,0,0\n")
    (tmp_path / "shapes.csv").write_text("path,label\ncloud.csv,chair\n")
    for name in ("cloud.csv", "shapes.csv"):
        assert [entry.path for entry in list_shapes(tmp_path / name)] == [tmp_path / "cloud.csv"]
        files = open_shape_files(str(tmp_path / name), num_surface_points=9, up="z")
        assert len(files.cloud(0).points) == 3


def build_ptx(shift: float = 0, rgb: str = "") -> str:
    pose = "1 2 3\n1 0 0\n0 1 0\n0 0 1\n"
    matrix = f"0 1 0 0\n-1 0 0 0\n0 0 1 0\n{shift} 2 3 1\n"
    rows = [f"1 0 0 0.5{rgb}", f"0 0 0 0.5{rgb}", f"0 1 0 0.25{rgb}", f"0 0 1 1{rgb}"]
    return f"2\n2\n{pose}{matrix}" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ptx_scans_are_posed_merged_and_counted(newline: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ptx"
    path.write_text(build_ptx() + build_ptx(500_000), newline=newline)
    found = read_ptx(path, ReadOptions())
    first = np.array([[0, 3, 3], [-1, 2, 3], [0, 2, 4]])
    assert np.array_equal(found.points, [*first, *(first + [500_000, 0, 0])])
    assert found.extra["intensity"].tolist() == [0.5, 0.25, 1] * 2
    assert found.extra["scan"].tolist() == [0, 0, 0, 1, 1, 1]
    assert found.notes == ("2 of 8 points are 0 0 0, without a return: omitted",)
    path.write_text(build_ptx(rgb=" 10 20 30"), newline=newline)
    assert read_shape(path).colors.tolist() == [[10, 20, 30]] * 3


def test_damaged_ptx_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ptx"
    for content, message in (
        (build_ptx()[:-12], r"numbers, expected \(4, 4\)|it is shorter"),
        (build_ptx().replace("2\n2\n", "200000\n200000\n", 1), "declares 200000 x 200000 points"),
        (build_ptx() + "2\n2\n1 2", "ends after 2 of 10 lines"),
        (build_ptx().replace("-1 0 0 0\n", "-1 0 0\n"), "matrix|inhomogeneous"),
        (build_ptx().replace("1 0 0 0.5\n", "0 0 0 0.5\n").replace("0 1 0 0.25", "0 0 0 1")
         .replace("0 0 1 1", "0 0 0 1"), "all of its points are 0 0 0"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"a\.ptx: .*({message})"):
            read_shape(path)
