"""3MF packages are read as lib3mf reads them, with their colors."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.io.exchange.content import FILES, collect, compute_normals, measure, read
from recon.data.io.meshes.exchange import placement
from recon.data.io.shape import read_shape

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
TETRAHEDRON = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], float)


def write(path: Path, *, resources: str, build: str, head: str = "", **files: bytes) -> Path:
    model = (
        f'<model xmlns="{CORE}" xmlns:m="{MATERIAL}" xmlns:x="urn:x" {head}><resources>{resources}'
        f"</resources><build>{build}</build></model>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", model)
        for name, content in files.items():
            archive.writestr(f"3D/{name}", content)
    return path


def make_triangle(properties: str = "", attributes: str = "", z: float = 0) -> str:
    return (
        f'<object id="1" {attributes}><mesh><vertices><vertex x="0" y="0" z="{z}"/>'
        '<vertex x="1" y="0" z="0"/><vertex x="0" y="1" z="0"/></vertices><triangles>'
        f'<triangle v1="0" v2="1" v3="2" {properties}/></triangles></mesh></object>'
    )


def test_a_file_of_lib3mf_is_placed_and_colored() -> None:
    content = read(FILES / "3mf" / "lib3mf.3mf")
    assert (content.up, content.unit_meters, content.notes) == ("z", 0.0254, ())
    turned = TETRAHEDRON[:, [1, 0, 2]] * (-2, 2, 2) + (10, 0, 1)
    mirrored = TETRAHEDRON * (2, 2, -2) + (0, 0, 1)
    triangles = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    expected = np.concatenate([turned[triangles], mirrored[triangles[:, ::-1]]])
    found = collect(content)
    assert sorted(map(str, found.tolist())) == sorted(map(str, expected.tolist()))
    assert compute_normals(content)[:, 2].sum() == pytest.approx(0)
    colored = [s for s in content.surfaces if s.vertex_colors is not None]
    painted = [s for s in content.surfaces if s.face_colors is not None]
    (surface,), (plain,) = colored, painted
    assert surface.vertex_colors is not None
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    np.testing.assert_array_equal(
        surface.vertex_colors[surface.faces],
        [[red, green, blue], [red] * 3, [blue, green, red], [red] * 3],
    )
    assert plain.face_colors is not None
    np.testing.assert_array_equal(plain.face_colors, [[10, 20, 30]] * 4)


def test_real_files_have_the_size_that_lib3mf_gives() -> None:
    box = read(FILES / "3mf" / "HierarchicalComponent.3mf")
    assert (len(collect(box)), measure(box)) == (12, pytest.approx(60000))
    assert (collect(box).min(), collect(box).max()) == (0, 100)
    cube = read(FILES / "3mf" / "3mfbase12_holed_cube.3mf")
    assert (len(collect(cube)), measure(cube)) == (144, pytest.approx(512.674193, rel=1e-6))
    assert cube.unit_meters == 0.0254


def test_textures_and_mixtures_are_read(tmp_path: Path) -> None:
    pixels, buffer = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    resources = (
        '<m:texture2d id="5" path="/3D/a.png" contenttype="image/png" tilestyleu="mirror" '
        'tilestylev="none" filter="nearest"/><m:texture2dgroup id="6" texid="5">'
        '<m:tex2coord u="0" v="0"/><m:tex2coord u="1" v="0.25"/></m:texture2dgroup>'
        + make_triangle('pid="6" p1="0" p2="1" p3="0"')
    )
    build = '<item objectid="1"/>'
    path = write(
        tmp_path / "a.3mf", resources=resources, build=build, **{"a.png": buffer.getvalue()}
    )
    texture = read(path).surfaces[0].texture
    assert texture is not None
    np.testing.assert_array_equal(texture.pixels, pixels)
    np.testing.assert_array_equal(texture.uv, [[[0, 1], [1, 0.75], [0, 1]]])
    assert (texture.wrap, texture.is_nearest) == (("mirror", "clamp"), True)
    resources = (
        '<basematerials id="7"><base name="a" displaycolor="#FF0000"/><base name="b" '
        'displaycolor="#0000FF80"/></basematerials><m:compositematerials id="8" matid="7" '
        'matindices="1 0"><m:composite values="0.25 0.75"/></m:compositematerials>'
        + make_triangle("", 'pid="8" pindex="0"')
    )
    colors = read(write(path, resources=resources, build=build)).surfaces[0].face_colors
    assert colors is not None
    np.testing.assert_array_equal(colors, [[191, 0, 64]])


def test_what_is_not_read_is_noted(tmp_path: Path) -> None:
    resources = (
        '<m:multiproperties id="9" pids=""><m:multi pindices=""/></m:multiproperties>'
        + make_triangle('pid="9" p1="0"').replace("</triangles>", "</triangles><x:beamlattice/>")
    )
    path = write(tmp_path / "a.3mf", resources=resources, build='<item objectid="1"/>')
    content = read(path)
    assert (content.up, content.unit_meters) == ("z", 0.001)
    assert "beams" in content.notes[0]
    assert "multiproperties" in content.notes[1]


@pytest.mark.parametrize(
    ("resources", "build", "head", "reason"),
    [
        (make_triangle(), '<item objectid="2"/>', "", "'2' is missing"),
        (make_triangle(z=0).replace('v3="2"', 'v3="3"'), "", "", "outside its 3 vertices"),
        (make_triangle(), "", 'requiredextensions="x"', "'urn:x', which is not supported: export"),
        (make_triangle(), "", 'unit="mile"', "unit 'mile'"),
        (
            '<object id="1"><components><component objectid="1"/></components></object>',
            *('<item objectid="1"/>', "", "256 levels"),
        ),
        (
            '<m:colorgroup id="2"><m:color color="#FF"/></m:colorgroup>'
            + make_triangle('pid="2" p1="0"'),
            *('<item objectid="1"/>', "", "#RRGGBB"),
        ),
        (
            '<m:colorgroup id="2"/>' + make_triangle('pid="2" p1="0"'),
            *('<item objectid="1"/>', "", "outside its 0 properties"),
        ),
        (make_triangle(), "", "", "neither faces nor points"),
    ],
)
def test_wrong_files_are_refused(
    resources: str, build: str, head: str, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.3mf", resources=resources, build=build, head=head)
    with pytest.raises(ValueError, match=rf"a\.3mf: .*{reason}"):
        read_shape(path)


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.3mf", resources=make_triangle(), build='<item objectid="1"/>' * 3)
    monkeypatch.setattr(placement, "MAX_TRIANGLES", 5)
    with pytest.raises(ValueError, match=r"a\.3mf: .*6 triangles, the maximum is 5"):
        read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a\.3mf: not a readable 3MF file"):
        read(path)
