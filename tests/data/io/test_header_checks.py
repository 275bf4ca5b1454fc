"""Sizes that the headers of meshes announce are compared with the file before a parser reads it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon.data.io import header_checks
from recon.data.io.file_checks import wrap_read_errors
from recon.data.io.header_checks import check_glb, check_obj, check_ply
from recon.data.io.shape import read_shape

XYZ = "property float x\nproperty float y\nproperty float z\n"
FACES = "property list uchar int vertex_indices\n"
CORNERS = np.eye(3, dtype="<f4").tobytes()
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def ply(header: str, body: bytes = b"") -> bytes:
    kind = "binary_little_endian" if body else "ascii"
    return f"ply\nformat {kind} 1.0\n{header}end_header\n".encode() + (body or b"0 0 0\n")


def refuse(check: Callable[[Path], None], path: Path, content: bytes | str, reason: str) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=reason):
        check(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ply("element vertex 900\nproperty float x\n"), "900"),
        (ply("element nothing 5\nelement vertex 1\nproperty float x\n"), "'nothing'"),
        (ply("element vertex -5\nproperty float x\n"), "-5"),
        (ply(f"element vertex 5\n{XYZ}", CORNERS), "60 bytes.*36"),
        (ply(f"element vertex 3\n{XYZ}element face 90\n{FACES}", CORNERS + bytes(90)), "1206 "),
        (ply(f"element vertex 3\n{XYZ}", CORNERS + b"0000"), r"\b4 bytes"),
        (ply(f"element vertex 1\n{XYZ}") + b"1 1 1\n2 2 2\n", r"\b3 lines"),
        (b"ply\nformat ascii 1.0\n", "header"),
    ],
)
def test_ply_files_hold_what_their_header_announces(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    refuse(check_ply, tmp_path / "x.ply", content, reason)
    (tmp_path / "x.ply").write_bytes(ply(f"element vertex 3\n{XYZ}", CORNERS))
    check_ply(tmp_path / "x.ply")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v 0 0 0\nv 1 0\nv 0 1 0 5\nf 1 2 3\n", "three numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 2 3\n", r"vertex.* 0\b"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 9 9 9\n", "vertices follow"),
        ("\0" * 5 + TRIANGLE, "text"),
    ],
)
def test_obj_files_that_would_be_misread_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.obj"
    refuse(check_obj, path, text, reason)
    path.write_text("v 0 0 0\nv 1 0 0 1\nv 0 10 0 .1 .2 .3\nvn 0 0 1\nf -3//1 -2//1 -1//1\n")
    assert len(read_shape(path, 9).points) == 9


def test_an_obj_file_has_a_limited_number_of_materials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_checks, "MAX_MESH_PARTS", 3)
    materials = [f"usemtl m{number}\nf 1 2 3\n" for number in range(4)]
    refuse(check_obj, tmp_path / "x.obj", TRIANGLE + "".join(materials), "4 materials")
    (tmp_path / "x.obj").write_text(TRIANGLE + "".join(materials[:3]))
    check_obj(tmp_path / "x.obj")


def glb(scene: object) -> bytes:
    """A file of one triangle; parts of its scene are replaced."""
    positions, text = np.eye(3, dtype="<f4").tobytes(), json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(positions), b"BIN\0") + positions
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


POSITIONS = {"componentType": 5126, "type": "VEC3", "count": 3, "bufferView": 0}
PRIMITIVE = {"attributes": {"POSITION": 0}}
SCENE: dict[str, Any] = {
    "asset": {"version": "2.0"},
    "accessors": [POSITIONS],
    "bufferViews": [{"buffer": 0, "byteLength": 36}],
    "buffers": [{"byteLength": 36}],
    "meshes": [{"primitives": [PRIMITIVE]}],
    "scenes": [{"nodes": [0]}],
    "nodes": [{"mesh": 0}],
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "KHR_draco"),
        ({"accessors": [POSITIONS | {"sparse": {"count": 1}}]}, "sparse"),
        ({"accessors": [POSITIONS | {"byteOffset": -4}]}, "sparse|before"),
        ({"accessors": [POSITIONS | {"type": "VEC4"}]}, "three floats"),
        ({"accessors": [POSITIONS | {"componentType": 5122}]}, "three floats"),
        ({"accessors": [POSITIONS | {"count": -3}]}, "-3 values"),
        ({"meshes": [{"primitives": [PRIMITIVE | {"mode": 6}]}]}, "fans"),
        ({"nodes": [{"children": [1, 2]}, {"children": [2]}, {"mesh": 0}]}, "tree"),
    ],
)
def test_scenes_with_content_that_is_not_read_are_refused(
    changed: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.glb"
    refuse(check_glb, path, glb(SCENE | changed), reason)
    path.write_bytes(glb(SCENE))
    assert len(read_shape(path, 9).points) == 9


def test_scenes_without_a_header_or_a_description_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sound = tmp_path / "x.glb", glb(SCENE)
    refuse(check_glb, path, b"glTF", "header")
    refuse(check_glb, path, glb([1]), "scene")
    refuse(check_glb, path, sound[:12] + struct.pack("<I", 5000) + sound[16:], "5000 bytes")
    monkeypatch.setattr(header_checks, "MAX_GLB_JSON_BYTES", 10)
    refuse(check_glb, path, sound, r"scene of \d+ bytes")


LONG_CHAIN = {"nodes": [*({"children": [row]} for row in range(1, 5)), {"mesh": 0}]}
MANY_NODES = {"nodes": [{"mesh": 0}] * 5, "scenes": [{"nodes": [*range(5)]}]}
MANY_PARTS = {
    "nodes": [{"mesh": 0}] * 3,
    "scenes": [{"nodes": [0, 1, 2]}],
    "meshes": [{"primitives": [PRIMITIVE] * 2}],
}


@pytest.mark.parametrize(
    ("limit", "value", "changed", "reason"),
    [
        ("MAX_UNPACK_RATIO", 0, {}, "3 values"),
        ("MAX_UNPACK_RATIO", 0.02, MANY_NODES, "15 values"),
        ("MAX_MESH_PARTS", 4, MANY_NODES, r"\b5 "),
        ("MAX_MESH_PARTS", 5, MANY_PARTS, r"\b6 "),
        ("MAX_NODE_DEPTH", 3, LONG_CHAIN, "3"),
    ],
)
def test_scenes_have_limited_sizes(
    limit: str,
    value: float,
    changed: dict[str, object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "x.glb"
    path.write_bytes(glb(SCENE | changed))
    check_glb(path)
    monkeypatch.setattr(header_checks, limit, value)
    with pytest.raises(ValueError, match=reason):
        check_glb(path)


SOUND: dict[str, tuple[Callable[[Path], None], bytes]] = {
    "x.ply": (check_ply, ply(f"element vertex 3\n{XYZ}element face 0\n{FACES}", CORNERS)),
    "x.obj": (check_obj, f"usemtl a\n{TRIANGLE}".encode()),
    "x.glb": (check_glb, glb(SCENE)),
}


@pytest.mark.parametrize("name", SOUND)
def test_damaged_headers_are_accepted_or_named(name: str, tmp_path: Path) -> None:
    """Only the checks of this library see these bytes, never a parser below them."""
    check, sound = SOUND[name]
    path = tmp_path / name

    @settings(
        max_examples=100, deadline=None, derandomize=True, database=None,
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip
    @given(st.integers(0, len(sound) - 1), st.binary(max_size=4))
    def run(place: int, replacement: bytes) -> None:
        path.write_bytes(sound[:place] + replacement + sound[place + len(replacement) :])
        try:
            with wrap_read_errors(path, "shape"):
                check(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017

    run()
