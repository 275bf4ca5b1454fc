"""Containers, buffers and the JSON of glTF files, and what is refused about them."""

import base64
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import assert_damage_is_read_or_named
from gltf_files import FACES, SQUARE, Gltf, pack_chunk, pack_glb, write_square
from recon.data.io.meshes.gltf import container
from recon.data.io.meshes.gltf.reader import read_gltf
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import read_content, read_shape


def read_square(path: Path) -> None:
    (surface,) = read_gltf(path, ReadOptions()).surfaces
    np.testing.assert_array_equal(surface.vertices, SQUARE)
    np.testing.assert_array_equal(surface.faces.ravel(), FACES)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_the_format_declares_its_axis_and_unit(suffix: str, tmp_path: Path) -> None:
    path = write_square(tmp_path / f"a{suffix}")
    read_square(path)
    content = read_content(path)
    assert (content.up, content.unit_meters, content.notes) == ("y", 1.0, ())
    assert read_shape(path, 20).up == "y"
    assert read_shape(path, 20).colors is None


@pytest.mark.parametrize("name", ["b c.bin", "teil/Größe.bin", "a%b.bin"])
def test_file_names_are_percent_decoded(name: str, tmp_path: Path) -> None:
    from urllib.parse import quote

    path = write_square(tmp_path / "a.gltf")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.replace(tmp_path / "a.bin", tmp_path / name)
    scene = json.loads(path.read_text())
    scene["buffers"][0]["uri"] = quote(name)
    path.write_text(json.dumps(scene))
    read_square(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte-order mark
    read_square(path)


@pytest.mark.parametrize("is_base64", [True, False])
@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_buffers_can_be_data_uris(suffix: str, is_base64: bool, tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    data = (
        ";base64," + base64.b64encode(gltf.content).decode()
        if is_base64
        else "," + "".join(f"%{byte:02x}" for byte in gltf.content)
    )
    uri = f"data:application/octet-stream{data}"
    read_square(
        gltf.write(tmp_path / f"a{suffix}", buffers=[{"byteLength": len(gltf.content), "uri": uri}])
    )


def test_a_missing_buffer_is_named_with_the_cure(tmp_path: Path) -> None:
    path = write_square(tmp_path / "a.gltf")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(ValueError, match=r"a\.gltf: .*'a\.bin' is missing: copy it beside"):
        read_shape(path, 20)
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"a\.gltf: .*buffer 0 has 4 of 60 bytes"):
        read_shape(path, 20)


def test_buffers_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    path = write_square(tmp_path / "x" / "y" / "a.gltf")
    os.replace(path.with_suffix(".bin"), tmp_path / "a.bin")
    for uri in ("../../a.bin", str(tmp_path / "a.bin"), "file://" + str(tmp_path / "a.bin")):
        scene = json.loads(path.read_text())
        scene["buffers"][0]["uri"] = uri
        path.write_text(json.dumps(scene))
        with pytest.raises(ValueError, match=r"a\.bin' is missing"):
            read_shape(path, 20)


def test_more_chunks_and_bytes_after_the_file_are_passed_over(tmp_path: Path) -> None:
    path = write_square(tmp_path / "a.glb")
    content = bytearray(path.read_bytes() + pack_chunk(b"XYZ\0", bytes(8)))
    content[8:12] = struct.pack("<I", len(content))
    path.write_bytes(bytes(content) + b"\0\0")
    read_square(path)


def change(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + struct.pack("<I", value) + content[place + 4 :]


SOUND = pack_glb(json.dumps({"asset": {"version": "2.0"}}).encode(), SQUARE.tobytes())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"glTF", "header"),
        (change(SOUND, 4, 1), "glTF 1: convert it to glTF 2.0"),
        (change(SOUND, 8, 5000), "5000 bytes"),
        (change(SOUND, 12, 5000), "5000 bytes"),
        (pack_glb(b"[1]"), "scene"),
        (pack_glb(b'{"asset": {"version": "1.0"}}'), "glTF '1.0': convert it to glTF 2.0"),
        (SOUND[:12] + pack_chunk(b"BIN\0", b"1234")[:8] + SOUND[20:], "not JSON|bytes"),
        (SOUND, "neither faces nor points"),
    ],
)
def test_damaged_containers_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.glb: .*{reason}"):
        read_shape(path, 20)


def test_the_json_has_a_limited_number_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_square(tmp_path / "a.glb")
    monkeypatch.setattr(container, "MAX_JSON_PARTS", 10)
    with pytest.raises(ValueError, match=r"a\.glb: .*maximum is 10"):
        read_shape(path, 20)


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("KHR_mesh_quantization", True),
        ("KHR_materials_unlit", True),
        ("KHR_texture_basisu", True),
        ("KHR_lights_punctual", True),
        ("XYZ_curved_space", False),
        ("EXT_primitive_voxels", False),
    ],
)
def test_required_extensions_are_known_or_refused(name: str, is_read: bool, tmp_path: Path) -> None:
    gltf = Gltf(extensionsUsed=[name])
    gltf.mesh(gltf.square())
    read_square(gltf.write(tmp_path / "used.glb"))
    path = gltf.write(tmp_path / "a.glb", extensionsRequired=[name])
    if is_read:
        read_square(path)
    else:
        with pytest.raises(ValueError, match=rf"a\.glb: .*'{name}'.*: export it without"):
            read_shape(path, 20)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"accessors": []}, "number 0 of its 0 accessors"),
        ({"bufferViews": [{"buffer": 0, "byteLength": 9999}]}, "exceeds its buffer of 60"),
        ({"bufferViews": [{"buffer": 3, "byteLength": 1}] * 2}, "number 3 of its 1 buffers"),
        ({"nodes": [{"mesh": -1}]}, "-1 of its 1 meshes"),
        ({"nodes": [{"mesh": 0, "matrix": [1, 2]}]}, "size 2"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 9}]}]}, "mode 9"),
    ],
)
def test_damaged_scenes_are_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    gltf = Gltf()
    gltf.mesh(gltf.square())
    with pytest.raises(ValueError, match=rf"a\.glb: .*{reason}"):
        read_shape(gltf.write(tmp_path / "a.glb", **changed), 20)


def test_damaged_bytes_are_accepted_or_named(tmp_path: Path) -> None:
    """Only the reader of this library sees these bytes, never a parser below it."""
    path = write_square(tmp_path / "a.glb")
    assert_damage_is_read_or_named(path, lambda path: read_gltf(path, ReadOptions()))
