"""USD stages are read as OpenUSD composes them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.io.exchange.content import FILES, collect, compute_normals, measure, read
from recon.data.io.meshes.colors import encode_srgb
from recon.data.io.meshes.exchange import placement
from recon.data.io.points.table import PointTable
from recon.data.io.shape import read_content, read_shape

pytest.importorskip("pxr")

QUADS = """
point3f[] points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 0)]
int[] faceVertexCounts = [4, 4]
int[] faceVertexIndices = [0, 1, 2, 3, 1, 4, 5, 2]
uniform token subdivisionScheme = "none"
"""
ARROW = """
point3f[] points = [(0, 0, 0), (4, 0, 0), (4, 2, 0), (2, 1, 0), (0, 2, 0)]
int[] faceVertexCounts = [5]
int[] faceVertexIndices = [0, 1, 2, 3, 4]
"""


def write(path: Path, body: str, head: str = "") -> Path:
    path.write_text(f"#usda 1.0\n(\n{head}\n)\n{body}\n")
    return path


def define(kind: str, body: str, name: str = "a") -> str:
    return f'def {kind} "{name}" {{\n{body}\n}}\n'


def test_a_file_of_three_js_is_placed_and_colored() -> None:
    content = read(FILES / "usd" / "three.usdz")
    assert (content.up, content.unit_meters, content.notes) == ("y", 1, ())
    first, second = content.surfaces
    assert first.base_color is not None
    assert second.base_color is not None
    np.testing.assert_allclose(first.base_color, encode_srgb(np.array([0.5, 0.25, 1])))
    np.testing.assert_allclose(second.base_color, [1, 0, 0])
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 2, 0]], float)
    turned = corners[:, [1, 0, 2]] * (-2, 2, 2) + (1, 2, 3)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    np.testing.assert_allclose(first.vertices[first.faces], turned[faces], atol=1e-9)
    np.testing.assert_allclose(second.vertices[second.faces], corners[faces[:, ::-1]], atol=1e-9)


def test_all_parts_of_a_scene_are_placed(tmp_path: Path) -> None:
    place = (
        "double3 xformOp:translate = (1, 2, 3)\n"
        'uniform token[] xformOpOrder = ["xformOp:translate"]\n'
    )
    prototypes = define("Scope", define("Cube", "double size = 1", "s"), "p")
    instances = (
        "rel prototypes = [<p/s>]\nint[] protoIndices = [0, 0]\n"
        f"point3f[] positions = [(0, 0, 10), (0, 0, 20)]\n{prototypes}"
    )
    hidden = define("Mesh", ARROW + 'token visibility = "invisible"', "h")
    guide = define("Mesh", ARROW + 'uniform token purpose = "guide"', "g")
    left_handed = define("Mesh", ARROW + 'uniform token orientation = "leftHanded"', "l")
    body = place + left_handed + define("PointInstancer", instances, "i") + hidden + guide
    path = write(tmp_path / "a.usda", define("Xform", body), 'upAxis = "Z"\nmetersPerUnit = 0.001')
    content = read(path)
    assert (content.up, content.unit_meters) == ("z", 0.001)
    corners, normals = collect(content), compute_normals(content)
    np.testing.assert_array_equal(corners.min((0, 1)), [0.5, 1.5, 3])
    np.testing.assert_array_equal(corners.max((0, 1)), [5, 4, 23.5])
    assert measure(content) == pytest.approx(6 + 2 * 6)
    assert normals[:, 2].sum() == pytest.approx(-6)
    notes = " ".join(content.notes)
    assert "1 invisible prims" in notes
    assert "guide" in notes


@pytest.mark.parametrize(
    ("interpolation", "colors"),
    [
        ("constant", [0]),
        ("uniform", [0, 1]),
        ("vertex", [0, 1, 2, 3, 4, 5]),
        ("faceVarying", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_colors_of_all_interpolations_become_srgb(
    interpolation: str, colors: list[int], tmp_path: Path
) -> None:
    values = ", ".join(f"({value / 8}, 0, 1)" for value in colors)
    primvar = (
        f'color3f[] primvars:displayColor = [{values}] (\ninterpolation = "{interpolation}"\n)'
    )
    (surface,) = read(write(tmp_path / "a.usda", define("Mesh", QUADS + primvar))).surfaces
    corners = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    vertices = np.array([0, 1, 2, 3, 1, 4, 5, 2])
    rows = {
        "constant": 0 * corners,
        "uniform": corners // 4,
        "vertex": vertices[corners],
        "faceVarying": corners,
    }[interpolation]
    expected = encode_srgb(rows / 8)
    if surface.base_color is not None:
        found = np.broadcast_to(surface.base_color[0], (4, 3))
    elif surface.face_colors is not None:
        found = np.repeat(surface.face_colors[:, :1], 3, 1)
    else:
        assert surface.vertex_colors is not None
        found = surface.vertex_colors[surface.faces][..., 0]
    np.testing.assert_allclose(found, expected)


MATERIALS = """
def Material "red" {
token outputs:surface.connect = </m/red/s.outputs:surface>
def Shader "s" {
uniform token info:id = "UsdPreviewSurface"
color3f inputs:diffuseColor = (1, 0, 0.25)
token outputs:surface
}
}
def Material "picture" {
token outputs:surface.connect = </m/picture/s.outputs:surface>
def Shader "s" {
uniform token info:id = "UsdPreviewSurface"
color3f inputs:diffuseColor.connect = </m/picture/t.outputs:rgb>
token outputs:surface
}
def Shader "t" {
uniform token info:id = "UsdUVTexture"
asset inputs:file = @my image.png@
token inputs:wrapS = "mirror"
token inputs:wrapT = "clamp"
float4 inputs:scale = (1, 0.5, 1, 1)
float2 inputs:st.connect = </m/picture/x.outputs:result>
float3 outputs:rgb
}
def Shader "x" {
uniform token info:id = "UsdTransform2d"
float2 inputs:in.connect = </m/picture/r.outputs:result>
float2 inputs:scale = (2, 1)
float inputs:rotation = 90
float2 inputs:translation = (0, 3)
float2 outputs:result
}
def Shader "r" {
uniform token info:id = "UsdPrimvarReader_float2"
string inputs:varname = "map"
float2 outputs:result
}
}
"""
BOUND = """
texCoord2f[] primvars:map = [(0, 0), (1, 0), (1, 1), (0, 1), (2, 0), (2, 1)] (
interpolation = "vertex"
)
rel material:binding = </m/picture>
def GeomSubset "part" (
prepend apiSchemas = ["MaterialBindingAPI"]
) {
uniform token elementType = "face"
uniform token familyName = "materialBind"
int[] indices = [0]
rel material:binding = </m/red>
}
"""


@pytest.mark.parametrize("suffix", [".usda", ".usdz"])
def test_materials_of_parts_and_textures_are_read(suffix: str, tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "my image.png")
    mesh = define("Mesh", QUADS + BOUND).replace(
        '"a" {', '"a" (\nprepend apiSchemas = ["MaterialBindingAPI"]\n) {', 1
    )
    path = write(tmp_path / "a.usda", define("Scope", MATERIALS, "m") + mesh)
    if suffix == ".usdz":
        with zipfile.ZipFile(tmp_path / "a.usdz", "w") as archive:
            archive.write(path, "a.usda")
            archive.write(tmp_path / "my image.png", "my image.png")
        (tmp_path / "my image.png").unlink()
    content = read(path.with_suffix(suffix))
    assert content.notes == ()
    red, picture = content.surfaces
    assert red.base_color is not None
    np.testing.assert_allclose(red.base_color, encode_srgb(np.array([1, 0, 0.25])))
    assert picture.texture is not None
    assert picture.base_color is not None
    np.testing.assert_allclose(picture.base_color, encode_srgb(np.array([1, 0.5, 1])))
    np.testing.assert_array_equal(picture.texture.pixels, pixels)
    assert picture.texture.wrap == ("mirror", "clamp")
    uv = np.array([[1, 0], [2, 0], [2, 1]])
    expected = np.stack([-uv[:, 1], 1 - (2 * uv[:, 0] + 3)], 1)
    np.testing.assert_allclose(picture.texture.uv[0], expected, atol=1e-6)
    assert len(read_shape(path.with_suffix(suffix), 50).points) == 50


def test_points_are_read_where_nothing_has_faces(tmp_path: Path) -> None:
    points = (
        "point3f[] points = [(0, 0, 0), (1, 2, 3)]\ncolor3f[] primvars:displayColor = [(1, 0, 0), "
        '(0, 0, 0.5)] (\ninterpolation = "vertex"\n)\nfloat[] widths = [1]'
    )
    path = write(tmp_path / "a.usda", define("Points", points))
    content = read(path)
    assert isinstance(content.points, PointTable)
    np.testing.assert_array_equal(content.points.points, [[0, 0, 0], [1, 2, 3]])
    np.testing.assert_array_equal(content.points.colors, [[255, 0, 0], [0, 0, 188]])
    both = write(tmp_path / "b.usda", define("Points", points) + define("Cube", "", "c"))
    assert "1 point clouds beside surfaces: left out" in read(both).notes


def test_exact_shapes_have_their_size(tmp_path: Path) -> None:
    body = define("Sphere", "double radius = 2", "s") + define(
        "Cylinder", 'double radius = 1\ndouble height = 6\nuniform token axis = "X"', "c"
    )
    corners = collect(read(write(tmp_path / "a.usda", body)))
    np.testing.assert_allclose(corners.min((0, 1)), [-3, -2, -2], atol=1e-6)
    np.testing.assert_allclose(corners.max((0, 1)), [3, 2, 2], atol=1e-6)


def test_files_beside_a_stage_are_composed_but_none_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    part = define("Xform", define("Mesh", ARROW, "m"), "r")
    write(tmp_path / "x" / "part.usda", part, 'defaultPrim = "r"')
    write(tmp_path / "far.usda", part, 'defaultPrim = "r"')
    for name, area in (("../part.usda", 6), ("../none.usda", 0), ("../../far.usda", None)):
        reference = f'def "a" (\nprepend references = @{name}@\n) {{\n}}\n'
        path = write(tmp_path / "x" / "y" / "a.usda", reference)
        if area is None:
            with pytest.raises(ValueError, match=r"a\.usda: .*far\.usda', which is outside"):
                read_content(path)
            continue
        content = read(path)
        assert (measure(content) if content.surfaces else 0) == area
        assert ("none.usda" in " ".join(content.notes)) == (area == 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no USD", "header of USD"),
        (b"PXR-USDC" + bytes(100), "begins at byte 0"),
        (b"PXR-USDC" + bytes(8) + (88).to_bytes(8, "little") + bytes(64) + b"\xff" * 8, "sections"),
        (b"#usda 1.0\ndef Mesh", "line 2.: .*damaged"),
        (b"#usda 1.0\n" + define("Mesh", QUADS.replace("5, 2]", "6, 2]")).encode(), "outside"),
        (b"#usda 1.0\n" + define("Mesh", QUADS.replace("[4, 4]", "[4, 5]")).encode(), "9 corners"),
        (b"#usda 1.0\n", "neither faces nor points"),
    ],
)
def test_wrong_files_are_refused(
    content: bytes, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.usd").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.usd: .*{reason}"):
        read_shape(tmp_path / "a.usd")
    assert capfd.readouterr() == ("", "")


def test_instances_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "rel prototypes = [<s>]\nint[] protoIndices = [0, 0]\npoint3f[] positions = [(0, 0, 1), "
        "(0, 0, 2)]\n" + define("Cube", "", "s")
    )
    path = write(tmp_path / "a.usda", define("PointInstancer", body))
    monkeypatch.setattr(placement, "MAX_TRIANGLES", 23)
    with pytest.raises(ValueError, match=r"a\.usda: .*24 triangles, the maximum is 23"):
        read(path)
