"""VTK files of all encodings give their polygons, colors and points, and no messages."""

import base64
import struct
from pathlib import Path

import numpy as np
import pytest

from data.io.exchange.content import FILES, collect, compute_normals, measure, read
from recon.data.io.points.table import PointTable
from recon.data.io.shape import read_content, read_shape

pytest.importorskip("vtkmodules")

POINTS = "0 0 0  4 0 0  4 2 0  2 1 0  0 2 0"


def write(path: Path, body: str, kind: str = "POLYDATA") -> Path:
    path.write_text(
        f"# vtk DataFile Version 3.0\ntest\nASCII\nDATASET {kind}\nPOINTS 5 float\n{POINTS}\n{body}"
    )
    return path


@pytest.mark.parametrize("suffix", [".vtk", ".vtu"])
def test_files_of_meshio_keep_their_faces_and_colors(suffix: str) -> None:
    content = read(FILES / "vtk" / f"meshio{suffix}")
    (surface,) = content.surfaces
    assert (content.up, content.unit_meters) == (None, None)
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 1]], float)
    expected = points[[[0, 1, 2], [0, 2, 3], [1, 4, 2]]]
    np.testing.assert_array_equal(collect(content), expected)
    assert surface.vertex_colors is not None
    rows = [np.flatnonzero((points == vertex).all(1))[0] for vertex in surface.vertices]
    np.testing.assert_array_equal(surface.vertex_colors, np.arange(15).reshape(5, 3)[rows])


def test_real_files_have_their_known_size() -> None:
    (surface,) = read(FILES / "vtk" / "06_color_scalars.vtk").surfaces
    assert surface.vertex_colors is not None
    np.testing.assert_array_equal(
        surface.vertices[surface.faces], [[[1.5, 0, 0], [0, 1.5, 0], [1.5, 1.5, 0]]]
    )
    np.testing.assert_array_equal(surface.vertex_colors[surface.faces[0]], np.eye(3) * 255)
    cube = read(FILES / "vtk" / "02_raw_compressed.vtu")
    assert len(collect(cube)) == 108
    assert measure(cube) == pytest.approx(6)


def test_concave_polygons_strips_and_face_colors_are_read(tmp_path: Path) -> None:
    body = (
        "LINES 1 3\n2 0 1\nPOLYGONS 1 6\n5 0 1 2 3 4\nTRIANGLE_STRIPS 1 5\n4 0 1 4 2\n"
        "CELL_DATA 3\nCOLOR_SCALARS rgb 3\n1 1 1 1 0 0 0 0 1\n"
    )
    content = read(write(tmp_path / "a.vtk", body))
    normals = compute_normals(content)
    np.testing.assert_array_equal(normals[3:, 2], [4, 4])
    assert normals[:3, 2].sum() == 6
    colors = content.surfaces[0].face_colors
    np.testing.assert_array_equal(colors, [[255, 0, 0]] * 3 + [[0, 0, 255]] * 2)
    assert content.notes == ("lines are not read: left out",)


def test_points_keep_normals_and_scalars(tmp_path: Path) -> None:
    body = (
        "VERTICES 5 10\n1 0 1 1 1 2 1 3 1 4\nPOINT_DATA 5\nSCALARS heat float 1\n"
        "LOOKUP_TABLE default\n1 2 3 4 5\nSCALARS label int 1\nLOOKUP_TABLE default\n5 4 3 2 1\n"
        "NORMALS n float\n" + "0 0 1\n" * 5
    )
    table = read_content(write(tmp_path / "a.vtk", body))
    table = table if isinstance(table, PointTable) else table.points
    assert table is not None
    np.testing.assert_array_equal(table.points.ravel(), np.array(POINTS.split(), float))
    np.testing.assert_array_equal(table.normals, [[0, 0, 1]] * 5)
    np.testing.assert_array_equal(table.extra["heat"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(table.extra["label"], [5, 4, 3, 2, 1])


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("sign", ["", "u"])
def test_types_that_meshio_names_by_their_bits_are_read(
    bits: int, sign: str, tmp_path: Path
) -> None:
    body = f"POINT_DATA 5\nFIELD FieldData 1\na 1 5 vtktype{sign}int{bits}\n1 2 3 4 5\n"
    table = read_content(write(tmp_path / "a.vtk", body))
    table = table if isinstance(table, PointTable) else table.points
    assert table is not None
    assert table.extra["a"].dtype == f"{sign}int{bits}"
    np.testing.assert_array_equal(table.extra["a"], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_xml_of_all_encodings_is_read(encoding: str, tmp_path: Path) -> None:
    def encode(values: np.ndarray) -> str:
        if encoding == "ascii":
            return " ".join(map(str, values.ravel().tolist()))
        content = values.tobytes()
        return base64.b64encode(struct.pack("<I", len(content)) + content).decode()

    def describe(values: np.ndarray, kind: str, name: str, width: int = 1) -> str:
        return (
            f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{width}" '
            f'format="{encoding}">{encode(values)}</DataArray>'
        )

    points = np.array(POINTS.split(), np.float32)
    colors = np.arange(15, dtype=np.float32) / 15
    (tmp_path / "a.vtp").write_text(
        '<?xml version="1.0"?><VTKFile type="PolyData" version="0.1" byte_order="LittleEndian">'
        '<PolyData><Piece NumberOfPoints="5" NumberOfPolys="1"><PointData>'
        f"{describe(colors, 'Float32', 'RGB', 3)}</PointData><Points>"
        f"{describe(points, 'Float32', 'Points', 3)}</Points><Polys>"
        f"{describe(np.arange(5), 'Int64', 'connectivity')}"
        f"{describe(np.array([5]), 'Int64', 'offsets')}</Polys></Piece></PolyData></VTKFile>"
    )
    content = read(tmp_path / "a.vtp")
    assert measure(content) == 6
    found = content.surfaces[0].vertex_colors
    assert found is not None
    np.testing.assert_allclose(found, colors.reshape(5, 3))
    assert read_shape(tmp_path / "a.vtp", 30).colors is not None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.vtk", "nothing", "header of VTK"),
        ("a.vtk", "# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_POINTS\n", "contour"),
        ("a.vtk", "# vtk DataFile Version 3.0\nt\nASCII\nFIELD f 0\n", "'FIELD', which has no"),
        (
            "a.vtk",
            "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 99999 float\n0 0 0\n",
            "POINTS 99999",
        ),
        (
            "a.vtk",
            "# vtk DataFile Version 3.0\nt\nASCII\nDATASET STRUCTURED_GRID\nDIMENSIONS 99 99 9\n",
            "DIMENSIONS 99 99 9",
        ),
        (
            "a.vtk",
            "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n0 0 0 1 x",
            "not a readable VTK file",
        ),
        ("a.vtp", "<VTKFile", "not a readable VTK file"),
        ("a.vtp", '<VTKFile NumberOfPoints="99999999">', "99999999 values"),
        ("a.vtp", '<!DOCTYPE a [<!ENTITY b "c">]><VTKFile>', "entities"),
    ],
)
def test_wrong_files_are_refused_without_messages(
    name: str, content: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
        read_shape(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_face_of_a_missing_vertex_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.vtk", "POLYGONS 1 4\n3 0 1 5\n")
    with pytest.raises(ValueError, match=r"a\.vtk: .*outside its 5 vertices"):
        read_shape(path)
