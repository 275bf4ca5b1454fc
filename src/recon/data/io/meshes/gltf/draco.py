"""Decode meshes of KHR_draco_mesh_compression with DracoPy."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Num

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.gltf.container import GltfFile

DRACO = "KHR_draco_mesh_compression"
HAS_METADATA, EDGEBREAKER = 0x8000, 1
"""A bit of the flags, and a value of the method, in the header of a Draco mesh."""


class DracoData(NamedTuple):
    """A decoded mesh."""

    attributes: Mapping[str, Num[np.ndarray, "v c"]]
    faces: Int[np.ndarray, "f 3"]


def decode_draco(
    file: GltfFile, extension: Mapping[str, Any], declared: int, *, has_copy: bool
) -> DracoData | None:
    """Decode a compressed primitive; return None without DracoPy if `has_copy`.

    `declared` is the number of values that the primitive declares. Raises ValueError for too many
    values, without DracoPy, and for missing positions.
    """
    try:
        import DracoPy
    except ImportError as error:
        if has_copy:
            return None
        raise UnsupportedContentError(
            "it is compressed with Draco, which needs DracoPy: pip install "
            "'recon-pointcloud[draco]'"
        ) from error
    content = bytes(file.read_view(extension["bufferView"]))
    sizes = read_draco_sizes(content)
    file.reserve(declared if sizes is None else sum(sizes))
    mesh = DracoPy.decode(content)
    by_id = {a["unique_id"]: np.asarray(a["data"]) for a in mesh.attributes}
    attributes = {
        name: by_id[number].reshape(len(by_id[number]), -1)
        for name, number in extension["attributes"].items()
        if number in by_id
    }
    if "POSITION" not in attributes:
        raise ValueError("its Draco mesh has no positions")
    return DracoData(attributes, np.asarray(mesh.faces).astype(np.int64).reshape(-1, 3))


def read_draco_sizes(content: bytes) -> tuple[int, int] | None:
    """Return the numbers of vertices and triangles that the header of a Draco mesh declares.

    None for versions of the format before 2.2, whose header differs. Raises ValueError for other
    content.
    """
    if len(content) < 12 or content[:5] != b"DRACO" or content[7] != 1:
        raise ValueError("it has no Draco mesh")
    if (content[5], content[6]) < (2, 2):
        return None
    place = 11
    if int.from_bytes(content[9:11], "little") & HAS_METADATA:
        place = _skip_all_metadata(content, place)
    if content[8] == EDGEBREAKER:
        num_vertices, place = _read_varint(content, place + 1)
        return num_vertices, _read_varint(content, place)[0]
    num_faces, place = _read_varint(content, place)
    return _read_varint(content, place)[0], num_faces


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """Return an integer of seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while shift < 70:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
    raise ValueError("its Draco mesh declares a size of more than ten bytes")


def _skip_all_metadata(content: bytes, place: int) -> int:
    count, place = _read_varint(content, place)
    for _ in range(count):  # of attributes
        place = _skip_metadata(content, _read_varint(content, place)[1])
    return _skip_metadata(content, place)


def _skip_metadata(content: bytes, place: int) -> int:
    """Return the place after a list of named values; each of them takes bytes of the content."""
    num_entries, place = _read_varint(content, place)
    for _ in range(num_entries):
        size, place = _read_varint(content, place + 1 + content[place])
        place += size
    num_children, place = _read_varint(content, place)
    if num_children:
        raise UnsupportedContentError(
            "the metadata of its Draco mesh are nested: export it without Draco"
        )
    return place
