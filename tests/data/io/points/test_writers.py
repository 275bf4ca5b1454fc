"""Written points: other libraries read exactly what was written, and this one reads it again."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyarrow.parquet as parquet
import pypcd4
import pytest
from plyfile import PlyData

from recon.data.io.points.table import PointTable
from recon.data.io.points.writers.formats import WRITERS, write_points
from recon.data.io.points.writers.full_tables import read_full_table
from recon.data.io.points.writers.las import choose_scale

RANDOM = np.random.default_rng(0)
COUNT = 50
UTM = np.array([500_000.0, 5_500_000.0, 100.0])
INTEGERS: dict[str, Any] = {
    f"value_{np.dtype(kind).name}": RANDOM.integers(
        max(np.iinfo(kind).min, -(2**53)), min(np.iinfo(kind).max, 2**53), COUNT
    ).astype(kind)
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
}
FLOATS = {"intensity": RANDOM.random(COUNT).astype(np.float32), "time": RANDOM.random(COUNT) * 1e9}
CLASSES = {0: "leg", 1: "table top", 2: "shade"}
READABLE = [suffix for suffix in WRITERS if suffix != ".parquet"]


def make_table(colors: Any = np.uint8, **extra: np.ndarray) -> PointTable:
    normals = RANDOM.normal(size=(COUNT, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rgb = RANDOM.random((COUNT, 3))
    if np.dtype(colors).kind == "u":
        rgb = (rgb * np.iinfo(colors).max).round()
        rgb[0] = np.iinfo(colors).max
    points = UTM + RANDOM.random((COUNT, 3)).round(4) * 80
    return PointTable(points, normals.astype(np.float32), rgb.astype(colors), extra)


def check_arrays(actual: Any, table: PointTable, normals: str = "n", reds: str = "") -> None:
    """Compare coordinates, normals and other properties of named arrays with a table's, exactly."""
    for number, axis in enumerate("xyz"):
        assert np.array_equal(actual[axis], table.points[:, number])
        assert np.array_equal(actual[f"{normals}{axis}"], table.normals[:, number])
    for name, values in table.extra.items():
        assert np.array_equal(actual[name], values), name


def test_plyfile_reads_written_ply_files(tmp_path: Path) -> None:
    table = make_table(**INTEGERS, **FLOATS)
    assert write_points(tmp_path / "a.ply", table, CLASSES) == ()
    ply = PlyData.read(str(tmp_path / "a.ply"))
    vertex = ply["vertex"].data
    check_arrays(vertex, table)
    for number, name in enumerate(("red", "green", "blue")):
        assert vertex[name].dtype == np.uint8
        assert np.array_equal(vertex[name], table.colors[:, number])
    assert vertex["value_uint16"].dtype == np.uint16
    assert vertex["x"].dtype == np.float64
    assert ply.comments == ["label 0 leg", "label 1 table top", "label 2 shade"]


def test_pypcd4_reads_written_pcd_files(tmp_path: Path) -> None:
    table = make_table(**INTEGERS, **FLOATS)
    assert write_points(tmp_path / "a.pcd", table, CLASSES) == ()
    cloud = pypcd4.PointCloud.from_path(tmp_path / "a.pcd")
    check_arrays(cloud.pc_data, table, "normal_")
    rgb = pypcd4.PointCloud.decode_rgb(cloud.pc_data["rgb"])
    assert np.array_equal(rgb, table.colors)
    for name, values in table.extra.items():
        assert cloud.pc_data[name].dtype == values.dtype
    assert b"# label 1 table top\n" in (tmp_path / "a.pcd").read_bytes()


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_laspy_reads_written_scans(suffix: str, tmp_path: Path) -> None:
    label = np.arange(COUNT, dtype=np.int32) % 3
    table = make_table(**INTEGERS, **FLOATS, label=label, return_number=label.astype(float))
    notes = write_points(tmp_path / f"a{suffix}", table, CLASSES)
    las = laspy.read(tmp_path / f"a{suffix}")
    assert las.header.are_points_compressed == (suffix == ".laz")
    las_colors = np.stack([las.red, las.green, las.blue], 1)
    assert np.abs(las.xyz - table.points).max() < 1e-6
    assert np.array_equal(las_colors, table.colors.astype(int) * 257)
    assert np.array_equal(las.classification, label)
    assert np.array_equal(las.return_number, label)
    for number, axis in enumerate("xyz"):
        assert np.array_equal(las[f"normal_{axis}"], table.normals[:, number])
    for name in (*INTEGERS, "time"):
        assert las[name].dtype == table.extra[name].dtype
        assert np.array_equal(las[name], table.extra[name])
    assert np.array_equal(las["intensity_2"], table.extra["intensity"])  # fractions
    assert las.header.vlrs.get("ClassificationLookupVlr")[0].lookups == CLASSES
    assert "normals are extra dimensions" in notes
    assert any("steps of 2e-08" in note for note in notes)


def test_numpy_reads_written_archives(tmp_path: Path) -> None:
    table = make_table(np.float32, **INTEGERS, **FLOATS, points=np.arange(COUNT))
    assert write_points(tmp_path / "a.npz", table, CLASSES) == ("renamed 'points' to points_2",)
    arrays = np.load(tmp_path / "a.npz")
    for name in ("points", "normals", "colors"):
        assert np.array_equal(arrays[name], getattr(table, name))
        assert arrays[name].dtype == getattr(table, name).dtype
    assert np.array_equal(arrays["points_2"], np.arange(COUNT))
    for name in (*INTEGERS, *FLOATS):
        assert arrays[name].dtype == table.extra[name].dtype
        assert np.array_equal(arrays[name], table.extra[name])
    assert arrays["names"].tolist() == list(CLASSES.values())


def test_pyarrow_reads_written_tables(tmp_path: Path) -> None:
    table = make_table(np.uint16, **INTEGERS, **FLOATS)
    assert write_points(tmp_path / "a.parquet", table, CLASSES) == ()
    content = parquet.read_table(tmp_path / "a.parquet")
    arrays = {name: content[name].to_numpy() for name in content.column_names}
    check_arrays(arrays, table)
    assert np.array_equal(arrays["green"], table.colors[:, 1])
    assert arrays["green"].dtype == np.uint16
    assert list(arrays)[:9] == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    names = json.loads(content.schema.metadata[b"names"])
    assert names == {str(number): name for number, name in CLASSES.items()}


@pytest.mark.parametrize(("first", "second"), [*product(READABLE, READABLE)])
def test_properties_survive_conversion_to_every_other_format(
    first: str, second: str, tmp_path: Path
) -> None:
    table = make_table(**{k: INTEGERS[k] for k in ("value_uint16", "value_int32")}, **FLOATS)
    write_points(tmp_path / f"a{first}", table)
    between = read_full_table(tmp_path / f"a{first}")
    write_points(tmp_path / f"b{second}", between)
    result = read_full_table(tmp_path / f"b{second}")
    has_las = {".las", ".laz"} & {first, second}
    assert np.abs(result.points - table.points).max() <= (1e-6 if has_las else 0)
    assert np.array_equal(result.normals, table.normals)
    colors = np.asarray(result.colors, float)
    scale = 1 if result.colors.dtype == np.uint8 else 257
    assert np.array_equal(colors / scale, table.colors)
    for name in ("value_uint16", "value_int32", "time"):
        assert result.extra[name].dtype == table.extra[name].dtype
        assert np.array_equal(result.extra[name], table.extra[name])


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize("colors", [None, np.uint8, np.uint16, np.float32])
def test_colors_of_all_types_survive(suffix: str, colors: Any, tmp_path: Path) -> None:
    table = make_table(colors or np.uint8)
    if colors is None:
        table = table._replace(colors=None, normals=None)
    write_points(tmp_path / f"a{suffix}", table)
    result = read_full_table(tmp_path / f"a{suffix}")
    if colors is None:
        assert result.colors is None
        assert result.normals is None
        return
    limits = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
    scale = limits[result.colors.dtype.type]
    expected = table.colors / limits[colors]
    tolerance = 0.5 / 65535 if suffix in (".las", ".laz") and colors == np.float32 else 1e-12
    assert np.abs(result.colors / scale - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", [".ply", ".pcd"])
def test_names_without_spaces_are_written_and_said(suffix: str, tmp_path: Path) -> None:
    extra = {"number of returns": np.arange(COUNT), "x": np.ones(COUNT), "größe": np.ones(COUNT)}
    notes = write_points(tmp_path / f"a{suffix}", make_table(**extra))
    assert "'number of returns' to number_of_returns" in notes[0]
    result = read_full_table(tmp_path / f"a{suffix}")
    assert np.array_equal(result.extra["number_of_returns"], np.arange(COUNT))
    assert np.array_equal(result.extra["x_2"], np.ones(COUNT))


def test_values_that_a_format_cannot_hold_are_said(tmp_path: Path) -> None:
    wide = np.arange(COUNT) + 2**60 + 1
    assert write_points(tmp_path / "a.ply", make_table(wide=wide)) == ("rounded wide to float64",)
    assert write_points(tmp_path / "a.pcd", make_table(wide=wide)) == ()
    names = {f"{'long' * 9}{n}": np.arange(COUNT) for n in range(2)}
    notes = write_points(tmp_path / "a.las", make_table(**names), {0: "a" * 20})
    assert any("renamed" in note and "long" in note for note in notes)
    assert any("names of classes are cut" in note for note in notes)
    assert len(set(laspy.read(tmp_path / "a.las").point_format.extra_dimension_names)) == 5


@pytest.mark.parametrize("extent", [1e-3, 1.0, 2e3, 4e5, 8e5])
def test_rounding_of_scans_stays_below_a_tenth_of_a_millimeter(extent: float) -> None:
    points = UTM + RANDOM.random((99, 3)) * extent
    scales, offsets, _ = choose_scale(points)
    steps = np.round((points - offsets) / scales)
    assert np.abs(steps).max() < 2**31
    assert np.abs(steps * scales + offsets - points).max() <= 1e-4
    assert (offsets == offsets.round()).all()
    scales, _, notes = choose_scale(points * 1e6)
    assert notes[0].startswith("coordinates are rounded by up to") == bool(scales.max() > 2e-4)


def test_files_are_written_atomically_and_known_formats_only(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"before")
    with pytest.raises(ValueError, match="no points to write"):
        write_points(tmp_path / "a.ply", PointTable(np.zeros((0, 3))))
    broken = PointTable(np.zeros((2, 3)), extra={"text": np.array(["a", "b"])})
    with pytest.raises(Exception):  # noqa: B017, PT011
        write_points(tmp_path / "a.ply", broken)
    assert (tmp_path / "a.ply").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    with pytest.raises(ValueError, match=r"a\.stl: cannot be written: choose one of .*\.las"):
        write_points(tmp_path / "a.stl", make_table())
