"""COLLADA files are read as the format defines them, like by other readers."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.io.exchange.content import FILES, collect, measure, read
from recon.data.io.meshes.exchange import placement
from recon.data.io.shape import read_shape

HEAD = '<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">'
SQUARE = "0 0 0 1 0 0 1 1 0 0 1 0"


def write(path: Path, *, mesh: str, nodes: str = "", rest: str = "") -> Path:
    """Write a document with one mesh of four vertices."""
    nodes = nodes or '<node><instance_geometry url="#g"/></node>'
    path.write_text(
        f'{HEAD}<library_geometries><geometry id="g"><mesh>'
        f'<source id="p"><float_array id="pa" count="12">{SQUARE}</float_array><technique_common>'
        '<accessor source="#pa" count="4" stride="3"><param name="X"/><param name="Y"/>'
        '<param name="Z"/></accessor></technique_common></source>'
        '<source id="t"><float_array id="ta" count="8">0 0 1 0 1 1 0 1</float_array>'
        '<technique_common><accessor source="#ta" count="4" stride="2"/></technique_common>'
        '</source><vertices id="v"><input semantic="POSITION" source="#p"/></vertices>'
        f"{mesh}</mesh></geometry></library_geometries>"
        f'<library_visual_scenes><visual_scene id="s">{nodes}</visual_scene>'
        f'</library_visual_scenes>{rest}<scene><instance_visual_scene url="#s"/></scene></COLLADA>'
    )
    return path


VERTEX = '<input semantic="VERTEX" source="#v" offset="0"/>'
QUAD = f'<polylist material="m">{VERTEX}<vcount>4</vcount><p>0 1 2 3</p></polylist>'


def test_a_file_of_pycollada_gives_its_polygons_twice() -> None:
    content = read(FILES / "dae" / "pycollada.dae")
    assert (content.up, content.unit_meters, content.notes) == ("z", 0.0254, ())
    assert sorted(len(s.faces) for s in content.surfaces) == [2, 6]
    colored = next(s for s in content.surfaces if s.vertex_colors is not None)
    plain = next(s for s in content.surfaces if s.vertex_colors is None)
    assert plain.base_color is not None
    np.testing.assert_array_equal(plain.base_color, [1, 0.5, 0])
    np.testing.assert_allclose(
        colored.vertices[colored.faces],
        [[[1, 2, 3], [1, 10, 3], [-3, 10, 3]], [[4, 2, 0], [4, 0, 0], [0, 0, 0]]],
        atol=1e-12,
    )
    expected = [[[0, 1, 1], [1, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 1, 0], [0, 1, 1]]]
    assert colored.vertex_colors is not None
    np.testing.assert_array_equal(colored.vertex_colors[colored.faces], expected)
    assert measure(content._replace(surfaces=[plain])) == pytest.approx(6 * 4 + 6)


@pytest.mark.parametrize(
    ("name", "number", "area", "low", "high", "up"),
    [
        ("cube_tristrips.dae", 12, 60000, (-50, -50, -50), (50, 50, 50), "z"),
        ("box_nested_animation.dae", 12, 24, (-2, 0, 0), (0, 2, 2), "z"),
        (
            "ConcavePolygon.dae",
            *(64, 0.2454967, (-1.146, 1.6575, 1.6055), (-1.146, 3.1425, 3.0905), "y"),
        ),
    ],
)
def test_real_files_have_their_known_size(
    name: str, number: int, area: float, low: tuple[float, ...], high: tuple[float, ...], up: str
) -> None:
    content = read(FILES / "dae" / name)
    corners = collect(content)
    assert (len(corners), content.up) == (number, up)
    assert measure(content) == pytest.approx(area, rel=1e-6)
    np.testing.assert_allclose(corners.min((0, 1)), low, atol=1e-5)
    np.testing.assert_allclose(corners.max((0, 1)), high, atol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "area"),
    [
        (QUAD, 1),
        (f"<polygons>{VERTEX}<p>0 1 2 3</p></polygons>", 1),
        (f"<polygons>{VERTEX}<ph><p>0 1 2 3</p><h>0 1 2</h></ph></polygons>", 0.5),
        (f"<tristrips>{VERTEX}<p>0 1 3 2</p></tristrips>", 1),
        (f"<trifans>{VERTEX}<p>0 1 2 3</p><p>0 1 2</p></trifans>", 1.5),
        (f"<triangles>{VERTEX}<p>0 1 2</p><p>0 2 3</p></triangles>", 1),
    ],
)
def test_all_kinds_of_faces_point_to_their_side(mesh: str, area: float, tmp_path: Path) -> None:
    content = read(write(tmp_path / "a.dae", mesh=mesh))
    corners = collect(content)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] >= 0).all()
    assert normals[:, 2].sum() / 2 == area
    assert (content.up, content.unit_meters) == ("y", None)


def test_transformations_are_multiplied_in_their_order(tmp_path: Path) -> None:
    instance = '<instance_geometry url="#g"/>'
    nodes = (
        f"<node><lookat>1 2 3 1 2 -9 0 1 0</lookat><node id='n'>{instance}</node></node>"
        f"<node><skew>45 0 1 0 1 0 0</skew>{instance}</node>"
        "<node><translate>0 0 5</translate><rotate>0 0 1 90</rotate><scale>2 1 1</scale>"
        "<instance_node url='#n'/></node>"
    )
    corners = read(write(tmp_path / "a.dae", mesh=QUAD, nodes=nodes))
    (surface,) = corners.surfaces
    square = np.array(SQUARE.split(), float).reshape(4, 3)
    skewed = square + square[:, 1:2] * (1, 0, 0)
    turned = np.stack([-square[:, 1], 2 * square[:, 0], square[:, 2] + 5], 1)
    expected = np.concatenate([square + (1, 2, 3), skewed, turned])
    np.testing.assert_allclose(surface.vertices, expected, atol=1e-12)


def test_textures_take_the_set_and_image_that_are_bound(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "my image.png")
    uv = '<input semantic="TEXCOORD" source="#t" offset="1" set="{}"/>'
    mesh = (
        f'<polylist material="m">{VERTEX}{uv.format(0)}{uv.format(1).replace("1", "2", 1)}'
        "<vcount>4</vcount><p>0 0 3 1 0 2 2 0 1 3 0 0</p></polylist>"
    )
    bound = (
        '<instance_material symbol="m" target="#mat"><bind_vertex_input semantic="CH" '
        'input_semantic="TEXCOORD" input_set="1"/></instance_material>'
    )
    nodes = (
        '<node><instance_geometry url="#g"><bind_material><technique_common>'
        f"{bound}</technique_common></bind_material></instance_geometry></node>"
    )
    rest = (
        '<library_images><image id="i"><init_from>file://my%20image.png</init_from></image>'
        '</library_images><library_materials><material id="mat"><instance_effect url="#e"/>'
        '</material></library_materials><library_effects><effect id="e"><profile_COMMON>'
        '<newparam sid="sf"><surface><init_from>i</init_from></surface></newparam><newparam '
        'sid="sa"><sampler2D><source>sf</source><wrap_s>MIRROR</wrap_s><wrap_t>CLAMP</wrap_t>'
        '</sampler2D></newparam><technique><lambert><diffuse><texture texture="sa" '
        'texcoord="CH"/></diffuse></lambert></technique></profile_COMMON></effect>'
        "</library_effects>"
    )
    content = read(write(tmp_path / "a.dae", mesh=mesh, nodes=nodes, rest=rest))
    texture = content.surfaces[0].texture
    assert texture is not None
    np.testing.assert_array_equal(texture.pixels, pixels)
    assert texture.wrap == ("mirror", "clamp")
    np.testing.assert_array_equal(texture.uv[0], [[0, 0], [1, 0], [1, 1]])
    (tmp_path / "my image.png").unlink()
    content = read(tmp_path / "a.dae")
    assert content.surfaces[0].texture is None
    assert "my image.png" in content.notes[0]


def test_archives_are_read_like_files(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.dae", mesh=QUAD)
    with zipfile.ZipFile(tmp_path / "a.zae", "w") as archive:
        archive.write(plain, "x/my scene.dae")
        archive.writestr("manifest.xml", "<dae_root>./x/my%20scene.dae</dae_root>")
    np.testing.assert_array_equal(collect(read(tmp_path / "a.zae")), collect(read(plain)))
    np.testing.assert_array_equal(
        read_shape(tmp_path / "a.zae", 9).points[:, 2], np.zeros(9, np.float32)
    )


def test_a_mesh_without_faces_gives_its_vertices(tmp_path: Path) -> None:
    nodes = '<node><translate>0 0 1</translate><instance_geometry url="#g"/></node>'
    path = write(tmp_path / "a.dae", mesh=f"<lines>{VERTEX}<p>0 1</p></lines>", nodes=nodes)
    expected = np.array(SQUARE.split(), np.float32).reshape(4, 3) + np.float32([0, 0, 1])
    np.testing.assert_array_equal(read_shape(path).points, expected)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dae", mesh=QUAD)
    path.write_text(path.read_text().replace(SQUARE, SQUARE.replace("1", "1,5")))
    assert measure(read(path)) == 2.25


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0 1 2 3</p>", "0 1 2 4</p>", "outside its 4"),
        ("0 1 2 3</p>", "0 1 2</p>", "4 corners, it has 3"),
        ("<vcount>4", "<vcount>-4", "-4 corners"),
        ('count="4" stride="3"', 'count="4000000" stride="3"', "4000000 rows"),
        ("<COLLADA", '<!DOCTYPE C [<!ENTITY a "b">]><COLLADA', "entities: export it without"),
        ("</COLLADA>", "", "damaged"),
        ("<node>", '<node id="n"><instance_node url="#n"/>', "256 levels"),
        ("<node>", "<node><matrix>1 2 3</matrix>", "matrix has 3 numbers"),
    ],
)
def test_wrong_files_are_refused(old: str, new: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dae", mesh=QUAD)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"a\.dae: .*{reason}"):
        read_shape(path)


def test_repeated_parts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dae", mesh=QUAD, nodes='<instance_geometry url="#g"/>' * 4)
    monkeypatch.setattr(placement, "MAX_TRIANGLES", 8)
    assert len(collect(read(path))) == 8
    monkeypatch.setattr(placement, "MAX_TRIANGLES", 7)
    with pytest.raises(ValueError, match=r"a\.dae: .*8 triangles, the maximum is 7"):
        read(path)
