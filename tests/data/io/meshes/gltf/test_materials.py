"""Colors of glTF surfaces: vertices, factors, textures, their transforms and samplers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gltf_files import SQUARE, Gltf
from recon.data.io.meshes import textures
from recon.data.io.meshes.colors import decode_srgb, encode_srgb
from recon.data.io.shape import read_shape

HALVES = np.zeros((8, 8, 3), np.uint8)
HALVES[:, :4, 0] = HALVES[:, 4:, 2] = 255  # left red, right blue
RED, BLUE = (255, 0, 0), (0, 0, 255)
LEFT = np.array([[0.1, 0.1], [0.4, 0.1], [0.4, 0.4], [0.1, 0.4]])


def read_colors(path: Path, gltf: Gltf, **top: Any) -> set[tuple[int, ...]] | None:
    colors = read_shape(gltf.write(path / "a.glb", **top), 200).colors
    return None if colors is None else set(map(tuple, np.asarray(colors).tolist()))


def material(gltf: Gltf, **values: Any) -> int:
    gltf.json.setdefault("materials", []).append({"pbrMetallicRoughness": values})
    return len(gltf.json["materials"]) - 1


def textured(
    image: np.ndarray | Image.Image = HALVES,
    uv: np.ndarray = LEFT,
    info: dict[str, Any] | None = None,
    kind: str = "PNG",
    **values: Any,
) -> Gltf:
    gltf = Gltf()
    gltf.json["textures"] = [{"source": gltf.image(image, kind)}]
    number = material(gltf, baseColorTexture={"index": 0, **(info or {})}, **values)
    gltf.mesh(gltf.square(material=number, attributes={"TEXCOORD_0": gltf.array(uv)}))
    return gltf


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("u1", [255, 128, 0, 255], (255, 128, 0)),
        ("u1", [255, 128, 7], (255, 128, 7)),
        ("<u2", [65535, 32768, 0, 65535], (255, 128, 0)),
        ("<u2", [65535, 32768, 257], (255, 128, 1)),
        ("<f4", [1, 0.5, 0], (255, 128, 0)),
        ("<f4", [1.001, 0.5, -0.001, 1], (255, 128, 0)),
    ],
)
@pytest.mark.parametrize("mode", [4, 0])
def test_vertex_colors_of_all_types(
    mode: int, dtype: str, values: list[float], expected: tuple[int, ...], tmp_path: Path
) -> None:
    gltf = Gltf()
    colors = gltf.array([values] * 4, dtype, normalized=dtype != "<f4")
    gltf.mesh(gltf.square(attributes={"COLOR_0": colors}, mode=mode))
    assert read_colors(tmp_path, gltf) == {expected}


def test_colors_are_multiplied_in_linear_light(tmp_path: Path) -> None:
    gray = np.full((4, 4, 3), 188, np.uint8)
    gltf = textured(gray, baseColorFactor=[0.5, 1, 0.25, 0.1])
    linear = decode_srgb(np.array([188 / 255])) * [0.5, 1, 0.25]
    expected = np.rint(255 * encode_srgb(linear)).astype(int)
    assert read_colors(tmp_path, gltf) == {tuple(expected)}
    primitive = gltf.json["meshes"][0]["primitives"][0]
    primitive["attributes"]["COLOR_0"] = gltf.array([[100, 255, 0]] * 4, "u1", normalized=True)
    linear = linear * decode_srgb(np.array([100, 255, 0]) / 255)
    expected = np.rint(255 * encode_srgb(linear)).astype(int)
    assert read_colors(tmp_path, gltf) == {tuple(expected)}


@pytest.mark.parametrize("linear", [0.0, 0.001, 0.2140, 0.5, 1.0])
def test_factors_are_linear(linear: float, tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square(material=material(gltf, baseColorFactor=[linear] * 3 + [1])))
    expected = 12.92 * linear if linear < 0.003 else 1.055 * linear ** (1 / 2.4) - 0.055
    assert read_colors(tmp_path, gltf) == {(round(255 * expected),) * 3}


def test_materials_without_a_color_are_white_beside_colored_ones(tmp_path: Path) -> None:
    gltf = Gltf()
    plain, red = material(gltf, metallicFactor=0), material(gltf, baseColorFactor=[1, 0, 0, 1])
    gltf.mesh(gltf.square(material=plain), gltf.square())
    assert read_colors(tmp_path, gltf) is None
    gltf.json["meshes"][0]["primitives"].append(gltf.square(material=red))
    assert read_colors(tmp_path, gltf) == {(255, 255, 255), RED}


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ({}, RED),
        ({"offset": [0.5, 0]}, BLUE),
        ({"scale": [0.9, 1], "offset": [0.5, 0]}, BLUE),
        ({"rotation": math.pi / 2, "offset": [0, 0.5]}, RED),
        ({"rotation": math.pi, "offset": [1, 1]}, BLUE),
        ({"texCoord": 1}, BLUE),
        ({"texCoord": 1, "offset": [-0.5, 0]}, RED),
    ],
)
def test_texture_transforms(
    transform: dict[str, Any], expected: tuple[int, ...], tmp_path: Path
) -> None:
    gltf = textured(info={"extensions": {"KHR_texture_transform": transform}})
    attributes = gltf.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = gltf.array(LEFT + [0.5, 0])
    top = {"extensionsRequired": ["KHR_texture_transform"]}
    assert read_colors(tmp_path, gltf, **top) == {expected}


def test_a_rotation_turns_coordinates_counter_clockwise_in_the_image(tmp_path: Path) -> None:
    """A quarter turn moves the coordinates (0.3, 0) up, out of the upper edge of the image."""
    rows = np.zeros((10, 10, 3), np.uint8)
    rows[:, :, 0] = np.arange(0, 250, 25)[:, None]
    uv = np.tile([[0.35, 0.25]], (4, 1))
    gltf = textured(rows, uv, {"extensions": {"KHR_texture_transform": {"rotation": math.pi / 2}}})
    # (u, v) becomes (v, -u); repeated, row -0.35 is row 0.65, the center of the seventh.
    assert read_colors(tmp_path, gltf) == {(150, 0, 0)}


def test_second_coordinates_of_all_types(tmp_path: Path) -> None:
    for dtype, one in (("u1", 255), ("<u2", 65535), ("<f4", 1)):
        gltf = textured(info={"texCoord": 1})
        attributes = gltf.json["meshes"][0]["primitives"][0]["attributes"]
        right = gltf.array((LEFT + [0.5, 0]) * one, dtype, normalized=one > 1)
        attributes["TEXCOORD_1"] = right
        assert read_colors(tmp_path, gltf) == {BLUE}


@pytest.mark.parametrize(
    ("mode", "shift", "expected"),
    [(10497, 1, RED), (33071, 1, BLUE), (33648, 1, BLUE), (33648, 2, RED), (33071, -1, RED)],
)
def test_coordinates_outside_the_image_are_wrapped(
    mode: int, shift: int, expected: tuple[int, ...], tmp_path: Path
) -> None:
    gltf = textured(uv=LEFT + [shift, 0])
    gltf.json["samplers"] = [{"wrapS": mode}]
    gltf.json["textures"][0]["sampler"] = 0
    assert read_colors(tmp_path, gltf) == {expected}


@pytest.mark.parametrize(("mag_filter", "is_mixed"), [(9728, False), (9729, True)])
def test_filters(mag_filter: int, is_mixed: bool, tmp_path: Path) -> None:
    pair = np.array([[[0] * 3, [200] * 3]], np.uint8)
    gltf = textured(pair, np.array([[0.3, 0.5], [0.7, 0.5], [0.7, 0.5], [0.3, 0.5]]))
    gltf.json["samplers"] = [{"magFilter": mag_filter, "wrapT": 33071}]
    gltf.json["textures"][0]["sampler"] = 0
    colors = read_colors(tmp_path, gltf)
    assert colors is not None
    assert (len(colors) > 2) == is_mixed


def test_specular_glossiness(tmp_path: Path) -> None:
    gltf = textured()
    values = gltf.json["materials"][0]
    extension: dict[str, Any] = {"diffuseFactor": [0, 1, 0, 1]}
    values["extensions"] = {"KHR_materials_pbrSpecularGlossiness": extension}
    assert read_colors(tmp_path, gltf) == {(0, 255, 0)}
    extension["diffuseTexture"] = {"index": 0}
    extension["diffuseFactor"] = [1, 1, 1, 1]
    values["pbrMetallicRoughness"] = {"baseColorFactor": [0, 1, 0, 1]}
    assert read_colors(tmp_path, gltf) == {RED}


def test_webp_images_come_first(tmp_path: Path) -> None:
    gltf = textured(np.full((4, 4, 3), 9, np.uint8))
    number = gltf.image(HALVES, "WEBP")
    gltf.json["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": number}}
    assert read_colors(tmp_path, gltf) == {RED}
    del gltf.json["textures"][0]["source"]
    assert read_colors(tmp_path, gltf, extensionsRequired=["EXT_texture_webp"]) == {RED}


def test_textures_that_are_not_decoded_are_noted(tmp_path: Path) -> None:
    gltf = textured()
    basis = {"KHR_texture_basisu": {"source": 1}}
    gltf.json["images"].append({"bufferView": gltf.view(b"\xabKTX 20\xbb\r\n\x1a\n")})
    gltf.json["textures"][0]["extensions"] = basis
    assert read_colors(tmp_path, gltf) == {RED}
    del gltf.json["textures"][0]["source"]
    path = gltf.write(tmp_path / "a.glb", extensionsRequired=["KHR_texture_basisu"])
    cloud = read_shape(path, 20)
    assert cloud.colors is None
    assert cloud.notes[0].startswith("a texture has no image but that of KHR_texture_basisu")
    gltf.json["textures"][0] = {"source": 1}
    cloud = read_shape(gltf.write(path), 20)
    assert cloud.colors is None
    assert cloud.notes == ("a texture is KTX2: no colors from it",)
    gltf.json["images"][1] = {"bufferView": gltf.view(b"<svg/>")}
    cloud = read_shape(gltf.write(path), 20)
    assert cloud.notes == ("a texture is neither PNG nor JPEG nor WebP: no colors from it",)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 128), 128),
        (Image.new("LA", (4, 4), (128, 3)), 128),
        (Image.new("RGBA", (4, 4), (128, 128, 128, 3)), 128),
        (Image.new("L", (4, 4), 128).convert("P", palette=Image.Palette.ADAPTIVE), 128),
        (Image.new("1", (4, 4), 1), 255),
        (sixteen_bits(), 128),
    ],
)  # fmt: skip
def test_images_of_all_depths(image: Image.Image, expected: int, tmp_path: Path) -> None:
    assert read_colors(tmp_path, textured(image)) == {(expected,) * 3}


def test_images_in_files_are_found_or_noted(tmp_path: Path) -> None:
    gltf = textured()
    (tmp_path / "images").mkdir()
    Image.fromarray(HALVES).save(tmp_path / "images" / "left & right.png")
    gltf.json["images"] = [{"uri": "images/left%20%26%20right.png"}]
    path = gltf.write(tmp_path / "a.gltf")
    assert {*map(tuple, read_shape(path, 20).colors.tolist())} == {RED}
    (tmp_path / "images" / "left & right.png").unlink()
    cloud = read_shape(path, 20)
    assert cloud.colors is None
    assert cloud.notes == ("the texture 'images/left & right.png' is missing: no colors from it",)


def test_a_texture_without_coordinates_gives_no_colors(tmp_path: Path) -> None:
    gltf = textured()
    del gltf.json["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    cloud = read_shape(gltf.write(tmp_path / "a.glb"), 20)
    assert cloud.colors is None
    assert cloud.notes == ("a mesh has a texture but no TEXCOORD_0: no colors from it",)


def test_a_texture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gltf, decoded = textured(), []
    load = textures.load_rgb
    monkeypatch.setattr(textures, "load_rgb", lambda *values: decoded.append(1) or load(*values))
    number = material(gltf, baseColorTexture={"index": 0}, baseColorFactor=[1, 1, 0, 1])
    gltf.mesh(gltf.square(material=number, attributes={"TEXCOORD_0": gltf.array(LEFT)}))
    tree = [{"mesh": row % 2, "translation": [row, 0, 0]} for row in range(20)]
    assert read_colors(tmp_path, gltf, nodes=tree, scenes=[{"nodes": [*range(20)]}]) == {RED}
    assert len(decoded) == 1


def test_points_take_colors_of_factors_and_textures(tmp_path: Path) -> None:
    gltf = textured(baseColorFactor=[1, 0, 0, 1])
    gltf.json["meshes"][0]["primitives"][0]["mode"] = 0
    cloud = read_shape(gltf.write(tmp_path / "a.glb"), 20)
    np.testing.assert_array_equal(cloud.points, SQUARE)
    assert {*map(tuple, cloud.colors.tolist())} == {RED}


def test_morph_targets_move_colors_and_coordinates(tmp_path: Path) -> None:
    gltf = textured()
    mesh = gltf.json["meshes"][0]
    mesh["primitives"][0]["targets"] = [{"TEXCOORD_0": gltf.array([[0.5, 0]] * 4)}]
    mesh["weights"] = [1]
    assert read_colors(tmp_path, gltf) == {BLUE}
    gltf = Gltf()
    colors = gltf.array([[0, 0, 0]] * 4, "u1", normalized=True)
    targets = [{"COLOR_0": gltf.array([[1, 0.2, 0]] * 4)}]
    gltf.mesh(gltf.square(attributes={"COLOR_0": colors}, targets=targets), weights=[0.5])
    assert read_colors(tmp_path, gltf) == {(128, 26, 0)}
