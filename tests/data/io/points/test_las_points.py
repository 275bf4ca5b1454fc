"""LAS points: flags, dimensions and declared units."""

from pathlib import Path

import laspy
import numpy as np
import pytest
from laspy.vlrs.known import GeoKeyDirectoryVlr, GeoKeyEntryStruct, WktCoordinateSystemVlr

from recon.data.io.las import read_las
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import read_shape

FILES = Path(__file__).parents[1] / "files" / "las"


def test_a_scan_of_another_program_is_read_exactly() -> None:
    path = FILES / "autzen_geo_proj.las"
    content = path.read_bytes()
    (offset,) = np.frombuffer(content, "<u4", 1, 96)
    record = [("xyz", "<i4", 3), ("intensity", "<u2"), ("flags", "u1"), ("class", "u1")]
    rows = np.frombuffer(content, [*record, ("rest", "u1", 12)], offset=offset)
    scales, offsets = np.frombuffer(content, "<f8", 6, 131).reshape(2, 3)
    found = read_las(path, ReadOptions())
    np.testing.assert_allclose(found.points, rows["xyz"] * scales + offsets, rtol=1e-15)
    assert np.array_equal(found.extra["intensity"], rows["intensity"])
    assert np.array_equal(found.extra["classification"], rows["class"] & 31)
    assert found.unit_meters == 0.3048  # declared in two ways, as feet


def build(point_format: int = 3, version: str = "1.2", count: int = 6) -> laspy.LasData:
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.scales = [0.001] * 3
    las = laspy.LasData(header)
    las.x, las.y, las.z = np.arange(3.0 * count).reshape(3, count)
    return las


@pytest.mark.parametrize(("point_format", "version"), [(0, "1.1"), (3, "1.2"), (6, "1.4")])
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_withheld_points_are_left_out_and_counted(
    point_format: int, version: str, suffix: str, tmp_path: Path
) -> None:
    las = build(point_format, version)
    las.classification[:] = [1, 2, 3, 12, 5, 6]
    las.withheld = [0, 0, 1, 0, 0, 1]
    las.synthetic = [1, 0, 0, 0, 0, 0]
    las.intensity = np.arange(6)
    if point_format == 6:
        las.overlap = [0, 1, 0, 0, 0, 0]
    las.write(tmp_path / f"a.{suffix}")
    found = read_las(tmp_path / f"a.{suffix}", ReadOptions())
    assert found.points[:, 0].tolist() == [0, 1, 3, 4]
    assert found.notes == ("2 of 6 points are flagged withheld: omitted",)
    assert found.extra["intensity"].tolist() == [0, 1, 3, 4]
    assert found.extra["classification"].tolist() == [1, 2, 12, 5]
    assert found.up == "z"


def test_clouds_of_withheld_points_are_refused(tmp_path: Path) -> None:
    las = build()
    las.withheld = np.ones(6, int)
    las.write(tmp_path / "a.las")
    with pytest.raises(ValueError, match=r"a\.las: .* all of its 6 points are .*: clear the flag"):
        read_shape(tmp_path / "a.las")


def test_bytes_in_16_bit_colors_and_dimensions_of_other_programs(tmp_path: Path) -> None:
    las = build(2)
    las.red, las.green, las.blue = np.full((3, 6), [[200], [100], [50]], np.uint16)
    for name in ("NormalX", "NormalY", "NormalZ", "Reflectance"):
        las.add_extra_dim(laspy.ExtraBytesParams(name, "f4"))
    las.add_extra_dim(laspy.ExtraBytesParams("shift", "2f8"))
    las.NormalZ[:] = 1
    las.Reflectance[:] = np.arange(6) / 2
    las.shift[:, 1] = 7
    las.write(tmp_path / "a.las")
    found = read_las(tmp_path / "a.las", ReadOptions())
    assert (found.normals == [0, 0, 1]).all()
    assert found.extra["Reflectance"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert found.extra["shift_1"].tolist() == [7] * 6
    assert not {"X", "red", "NormalX", "shift"} & {*found.extra}
    assert (read_shape(tmp_path / "a.las").colors == (200, 100, 50)).all()
    las.red[0] = 256 * 200
    las.write(tmp_path / "a.las")
    assert read_shape(tmp_path / "a.las").colors[0].tolist() == pytest.approx(
        np.array([256 * 200, 100, 50]) / 65535
    )


GEOGRAPHIC = 'GEOGCS["NAD83",DATUM["D",SPHEROID["GRS 1980",6378137,298.2]],UNIT["degree",0.0174]]'
CRS = 'BASEGEOGCRS["N",DATUM["D",ELLIPSOID["G",6378137,298,LENGTHUNIT["metre",1]]]]'
WKTS = {
    f'PROJCS["a",{GEOGRAPHIC},PARAMETER["x",1],UNIT["US survey foot",0.3048006096]]': 0.3048006,
    f'COMPD_CS["a",PROJCS["b",{GEOGRAPHIC},UNIT["metre",1.0,AUTHORITY["EPSG","9001"]]],'
    'VERT_CS["v",VERT_DATUM["d",2005],UNIT["metre",1]]]': 1,
    f'PROJCRS["a",{CRS},CONVERSION["c",PARAMETER["E",5,LENGTHUNIT["metre",1]]],CS[Cartesian,2],'
    'AXIS["e",east],LENGTHUNIT["foot",0.3048,ID["EPSG",9002]]]': 0.3048,
    f'PROJCRS["a",{CRS},CS[Cartesian,2],AXIS["e",east,LENGTHUNIT["metre",1]]]': 1,
    "nonsense [[[": None,
}  # fmt: skip


@pytest.mark.parametrize("wkt", WKTS)
def test_units_are_read_from_wkt(wkt: str, tmp_path: Path) -> None:
    las = build(6, "1.4")
    las.header.vlrs.append(WktCoordinateSystemVlr(wkt))
    las.write(tmp_path / "a.las")
    found = read_las(tmp_path / "a.las", ReadOptions())
    assert found.unit_meters == pytest.approx(WKTS[wkt])
    assert not found.notes


def test_heights_in_other_units_and_degrees_are_said(tmp_path: Path) -> None:
    las = build(6, "1.4")
    system = f'PROJCS["b",{GEOGRAPHIC},UNIT["metre",1]]'
    vertical = 'VERT_CS["v",UNIT["foot",0.3048]]'
    las.header.vlrs.append(WktCoordinateSystemVlr(f'COMPD_CS["a",{system},{vertical}]'))
    las.write(tmp_path / "a.las")
    found = read_las(tmp_path / "a.las", ReadOptions())
    assert found.unit_meters == 1
    assert found.notes == ("its heights are in units of 0.3048 m, x and y in units of 1 m",)
    las.header.vlrs[0] = WktCoordinateSystemVlr(GEOGRAPHIC)
    las.write(tmp_path / "a.las")
    assert "degrees" in read_las(tmp_path / "a.las", ReadOptions()).notes[0]


@pytest.mark.parametrize(
    ("keys", "unit"),
    [
        ({1024: 1, 3076: 9003}, 1200 / 3937),
        ({1024: 1, 3072: 2992, 3076: 9002}, 0.3048),
        ({1024: 1, 3072: 32633}, 1),
        ({1024: 1, 3072: 2992}, None),
        ({1024: 2, 2048: 4326}, None),
    ],
)
def test_units_are_read_from_geo_keys(
    keys: dict[int, int], unit: float | None, tmp_path: Path
) -> None:
    las, record = build(), GeoKeyDirectoryVlr()
    record.geo_keys = []
    for key, value in keys.items():
        entry = GeoKeyEntryStruct()
        entry.id, entry.count, entry.value_offset = key, 1, value
        record.geo_keys.append(entry)
    record.geo_keys_header.number_of_keys = len(keys)
    las.header.vlrs.append(record)
    las.write(tmp_path / "a.las")
    assert read_las(tmp_path / "a.las", ReadOptions()).unit_meters == unit
