"""PCD files: fields, packed colors, encodings of other libraries, and sizes that do not fit."""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pypcd4
import pytest

from recon.data.io.points.pcd import read_pcd, unpack_colors
from recon.data.io.points.table import PointTable, ReadOptions
from recon.data.io.shape import read_shape

FILES = Path(__file__).parents[1] / "files" / "pcd"
HEADER = {"VERSION": "0.7", "FIELDS": "x y z", "SIZE": "4 4 4", "TYPE": "F F F", "COUNT": "1 1 1",
          "WIDTH": "2", "HEIGHT": "1", "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": "2"}  # fmt: skip


def read(path: Path) -> PointTable:
    return read_pcd(path, ReadOptions())


def write_text(path: Path, rows: str, newline: str = "\n", **entries: str | None) -> Path:
    header = {**HEADER, **entries}
    lines = [f"{name} {value}" for name, value in header.items() if value is not None]
    text = "\n".join(["# .PCD v0.7", *lines, "DATA ascii", rows])
    path.write_bytes(text.replace("\n", newline).encode())
    return path


def write_binary(path: Path, content: bytes, encoding: str = "binary", **entries: str) -> Path:
    lines = [f"{name} {value}" for name, value in {**HEADER, **entries}.items()]
    path.write_bytes("\n".join([*lines, f"DATA {encoding}\n"]).encode() + content)
    return path


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_files_of_open3d_are_read_exactly(encoding: str) -> None:
    table = read(FILES / f"open3d_{encoding}.pcd")
    expected = np.loadtxt(FILES / "open3d.txt")
    assert table.points.dtype == np.float32
    assert np.array_equal(table.points, expected[:, :3])
    assert np.array_equal(table.normals, expected[:, 3:6])
    assert table.colors.dtype == np.uint8
    assert np.array_equal(table.colors, expected[:, 6:9])
    assert list(table.extra) == ["label", "intensity"]
    assert np.array_equal(table.extra["intensity"], expected[:, 9].astype(np.float32))
    assert table.extra["label"].dtype == np.int32
    assert np.array_equal(table.extra["label"], expected[:, 10])
    assert table.notes == ()


def test_samples_agree_with_pypcd4() -> None:
    for name in ("binary_compressed.pcd", "ascii_multi_count.pcd"):
        table, other = read(FILES / name), pypcd4.PointCloud.from_path(FILES / name).pc_data
        assert np.array_equal(table.points, np.stack([other[axis] for axis in "xyz"], 1))
        for number, column in enumerate(table.extra.values()):
            assert np.array_equal(column, other[f"intensity__{number:04d}"])
    assert list(table.extra) == [f"intensity_{number}" for number in range(4)]
    colors = read(FILES / "binary_compressed.pcd").colors
    assert colors[0].tolist() == [128, 128, 224]  # as Open3D reads them


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int16, np.uint64])
def test_files_of_pypcd4_keep_types(encoding: str, dtype: Any, tmp_path: Path) -> None:
    values = np.arange(5).astype(dtype)
    points = np.linspace(0, 1e6, 15).reshape(3, 5)
    cloud = pypcd4.PointCloud.from_points(
        [*points, values], ("x", "y", "z", "ring"), [np.float64] * 3 + [dtype]
    )
    cloud.save(tmp_path / "a.pcd", pypcd4.Encoding(encoding))
    table = read(tmp_path / "a.pcd")
    assert table.extra["ring"].dtype == dtype
    assert np.array_equal(table.extra["ring"], values)
    assert np.allclose(table.points, points.T, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["U", "I", "F"])
def test_packed_colors_of_all_types_are_split(kind: str, tmp_path: Path) -> None:
    packed = struct.pack("<II", 0xFF_C8_0A_01, 0x00_02_03_04)
    points = np.arange(6, dtype="<f4").reshape(2, 3)
    rows = b"".join(points[n].tobytes() + packed[4 * n : 4 * n + 4] for n in range(2))
    layout = {"SIZE": "4 4 4 4", "TYPE": f"F F F {kind}", "COUNT": "1 1 1 1"}
    for name in ("rgb", "rgba"):
        table = read(write_binary(tmp_path / "c.pcd", rows, FIELDS=f"x y z {name}", **layout))
        assert table.colors.tolist() == [[200, 10, 1], [2, 3, 4]]
        assert list(table.extra) == (["alpha"] if name == "rgba" else [])
    assert table.extra["alpha"].tolist() == [255, 0]


def test_colors_in_three_fields_are_read(tmp_path: Path) -> None:
    layout = {"SIZE": "4 4 4 1 1 1", "TYPE": "F F F U U U", "COUNT": "1 1 1 1 1 1"}
    path = write_text(tmp_path / "a.pcd", "0 0 0 9 8 7\n1 1 1 6 5 4\n", FIELDS="x y z r g b",
                      **layout)  # fmt: skip
    table = read(path)
    assert table.colors.tolist() == [[9, 8, 7], [6, 5, 4]]
    assert table.colors.dtype == np.uint8


def test_big_endian_colors_are_unpacked_by_value() -> None:
    colors, alpha = unpack_colors(np.array([0x01020304], ">u4"))
    assert (colors.tolist(), alpha.tolist()) == ([[2, 3, 4]], [1])


def test_missing_colors_of_texts_are_black_and_counted(tmp_path: Path) -> None:
    layout = {"FIELDS": "x y z rgb", "SIZE": "4 4 4 4", "TYPE": "F F F F", "COUNT": "1 1 1 1"}
    table = read(write_text(tmp_path / "a.pcd", "0 0 0 nan\n1 1 1 2.3e-38\n", **layout))
    assert table.colors[0].tolist() == [0, 0, 0]
    assert "lacks 1 values" in table.notes[0]


def test_organized_clouds_keep_valid_points(tmp_path: Path) -> None:
    rows = "nan nan nan\n1 2 3\n4 5 6\nnan nan nan\n"
    path = write_text(tmp_path / "a.pcd", rows, WIDTH="2", HEIGHT="2", POINTS="4")
    assert len(read(path).points) == 4
    cloud = read_shape(path)
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert "2 of 4 points are NaN or infinite: dropped" in cloud.notes


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_headers_of_early_versions_and_other_line_ends_are_read(
    newline: str, tmp_path: Path
) -> None:
    missing = dict.fromkeys(("SIZE", "TYPE", "COUNT", "VIEWPOINT", "HEIGHT", "POINTS"))
    path = write_text(tmp_path / "a.pcd", "1\t2  3 \n\n4 5 6", newline, VERSION=".5", **missing)
    assert read(path).points.tolist() == [[1, 2, 3], [4, 5, 6]]
    text = path.read_text().replace("FIELDS", "COLUMNS").replace("WIDTH", "# points\nWIDTH")
    path.write_text(text)
    assert read(path).points.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_viewpoint_is_not_applied(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.pcd", "1 2 3\n4 5 6", VIEWPOINT="9 9 9 0 1 0 0")
    assert read(path).points.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_padding_and_repeated_fields_are_left_out(tmp_path: Path) -> None:
    layout = {"SIZE": "4 1 4 4 2 2", "TYPE": "F U F F U U", "COUNT": "1 7 1 1 1 1"}
    dtype = np.dtype([("x", "<f4"), ("_", "V7"), ("yz", "<f4", 2), ("a", "<u2"), ("b", "<u2")])
    rows = np.zeros(2, dtype)
    rows["x"], rows["yz"], rows["a"], rows["b"] = [1, 2], [[3, 4], [5, 6]], [7, 8], [9, 9]
    path = write_binary(tmp_path / "a.pcd", rows.tobytes(), FIELDS="x _ y z ring ring", **layout)
    table = read(path)
    assert table.points.tolist() == [[1, 3, 4], [2, 5, 6]]
    assert {name: column.tolist() for name, column in table.extra.items()} == {"ring": [7, 8]}
    assert "ring occurs several times" in table.notes[0]


def test_bytes_after_the_points_are_ignored(tmp_path: Path) -> None:
    points = np.arange(6, dtype="<f4")
    path = write_binary(tmp_path / "a.pcd", points.tobytes() + bytes(4096))
    assert np.array_equal(read(path).points.ravel(), points)
    path = write_text(tmp_path / "b.pcd", "1 2 3\n4 5 6\n7 8 9\n")
    table = read(path)
    assert len(table.points) == 2
    assert "1 lines follow" in table.notes[0]


def test_incompressible_points_are_stored_as_they_are(tmp_path: Path) -> None:
    columns = np.arange(6, dtype="<f4")
    content = struct.pack("<II", 24, 24) + columns.tobytes()
    table = read(write_binary(tmp_path / "a.pcd", content, "binary_compressed"))
    assert np.array_equal(table.points.T.ravel(), columns)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"POINTS": "9", "WIDTH": "9"}, "declares 9 points"),
        ({"POINTS": "9"}, "WIDTH times HEIGHT is 2"),
        ({"POINTS": "-2"}, "POINTS -2"),
        ({"WIDTH": "4000000000", "POINTS": "4000000000"}, "4000000000 points"),
        ({"SIZE": "4 4"}, "different numbers"),
        ({"SIZE": "4 4 3"}, "type F of 3 bytes"),
        ({"TYPE": "F F S"}, "type S of 4 bytes"),
        ({"COUNT": "1 1 x"}, "count x"),
        ({"COUNT": "1 1 99999"}, "write fewer fields"),
        ({"FIELDS": "fpfh u v"}, "not x, y and z: rename"),
    ],
)
def test_headers_that_do_not_fit_are_refused(
    entries: dict[str, str], reason: str, tmp_path: Path
) -> None:
    for path in (
        write_binary(tmp_path / "a.pcd", bytes(24), **entries),
        write_text(tmp_path / "b.pcd", "1 2 3\n4 5 6", **entries),
    ):
        with pytest.raises(ValueError, match=rf"{path.name}: .*{reason}"):
            read(path)


def test_wrong_sizes_of_compressed_points_are_refused(tmp_path: Path) -> None:
    for compressed, unpacked, reason in (
        (10, 25, "unpack to 25 bytes, its header declares 24"),
        (99, 24, "which take 107 bytes"),
        (16, 24, "PCD file"),
    ):
        content = struct.pack("<II", compressed, unpacked) + bytes([255]) * 16
        path = write_binary(tmp_path / "a.pcd", content, "binary_compressed")
        with pytest.raises(ValueError, match=reason):
            read(path)
    for content in (b"", bytes(4)):
        path = write_binary(tmp_path / "a.pcd", content, "binary_compressed")
        with pytest.raises(ValueError, match="ends before"):
            read(path)


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    for content in (b"ply\nformat", b"FIELDS x y z\n", b"\x00" * 99):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no PCD header"):
            read(path)
    write_binary(path, bytes(24), "binary_zipped")
    with pytest.raises(ValueError, match="write it as ascii or binary"):
        read(path)
    write_text(path, "1 2 3")
    with pytest.raises(ValueError, match="ends after 1 of 2"):
        read(write_text(path, "1.00000 2.00000 3.00000"))


def test_compressed_files_name_the_package_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzf", None)
    with pytest.raises(ValueError, match=r"python-neo-lzf: pip install 'recon-pointcloud\[pcd\]'"):
        read(FILES / "binary_compressed.pcd")
    assert len(read(FILES / "open3d_binary.pcd").points) == 20
