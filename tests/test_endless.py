"""Files that once ended the program, took all memory or all time, or passed as other data."""

import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import laspy
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import trimesh
from PIL import Image

from recon.checkpoints.locate import MAX_TENSORS, read_safetensors_checkpoint
from recon.checkpoints.reader import read_checkpoint
from recon.checkpoints.run_config import read_config
from recon.data.datasets.folder import ShapeFolder
from recon.data.datasets.objaverse import OpenShape
from recon.data.datasets.scanobjectnn import ScanObjectNN
from recon.data.io.arrays import read_json, read_npz
from recon.data.io.file_checks import resolve_inside
from recon.data.io.image_checks import decode_image
from recon.data.io.shape import read_shape
from trees import objaverse, scanobjectnn


def refused(path: Path, read: Callable[[], object], why: str) -> None:
    """Fail unless a file is refused soon, and by its name."""
    start = time.process_time()
    with pytest.raises(ValueError, match=why) as error:
        read()
    assert str(path) in str(error.value)
    assert time.process_time() - start < 20


def object_npy(path: Path, pickled: bytes) -> None:
    with path.open("wb") as file:
        about = {"shape": (), "fortran_order": False, "descr": "|O"}
        np.lib.format.write_array_header_1_0(file, about)
        file.write(pickled)


def test_a_parquet_footer_that_ends_its_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.npy"], "label": ["chair"]}), path)
    whole = path.read_bytes()
    np.save(tmp_path / "a.npy", np.ones((9, 3)))
    assert ShapeFolder(path).ids == ["a.npy"]
    footer = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]
    for place in range(footer, len(whole) - 8, 9):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            ShapeFolder(path)
        except (ValueError, FileNotFoundError) as error:
            assert str(tmp_path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("stored", "mask", "why"),
    [
        (b"\0" * 16, 1, "not as long as it announces"),  # marked as not packed
        (zlib.compress(bytes(100)), 0, "not as long as it announces"),
        (zlib.compress(bytes(4 * 2048 * 3 * 4 + 1)), 0, "not as long as it announces"),
        (None, 0, "of the 1 chunks of `data` 0 were written"),
    ],
)
def test_hdf5_chunks_of_another_length_are_refused(
    stored: bytes | None, mask: int, why: str, tmp_path: Path
) -> None:
    scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "training_objectdataset.h5"
    with h5py.File(path, "w") as file:
        options = {"chunks": (4, 2048, 3), "compression": "gzip"}
        data = file.create_dataset("data", (4, 2048, 3), "<f4", **options)
        if stored is not None:
            data.id.write_direct_chunk((0, 0, 0), stored, mask)
        file["label"] = np.zeros(4, np.int32)
        file["pad"] = np.ones(9999)
    refused(path, lambda: ScanObjectNN(tmp_path), why)


def test_hdf5_that_was_never_written_is_refused_and_what_was_is_read(tmp_path: Path) -> None:
    scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "training_objectdataset.h5"
    points = np.random.default_rng(0).normal(size=(5, 2048, 3)).astype(np.float32)
    for options in (
        {},
        {"chunks": (2, 1000, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (5, 2048, 3), "fletcher32": True},
    ):
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=points, **options)
            file["label"] = np.arange(5)
        assert np.array_equal(ScanObjectNN(tmp_path).cloud(3).points, points[3])
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (1, 2048, 3), "<f4")
        file["label"], file["pad"] = np.zeros(1), np.zeros(9999)
    refused(path, lambda: ScanObjectNN(tmp_path), "`data` was never written")


def test_pickles_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\1btR"
    dtype = b"cnumpy\ndtype\n(X\2\0\0\0f8K\0K\1tR"
    big = (1 << 800000).to_bytes(100008, "little")
    shape = b"\x80\2\x8b" + struct.pack("<i", len(big)) + big + b"q\x010"
    object_npy(path, shape + array + b"(K\1(" + b"h\1" * 1500 + b"t" + dtype + b"\x89C\0tb.")
    refused(path, lambda: read_shape(path), "an array of no shape")
    object_npy(path, b"\x80\4cnumpy\ndtype\n(X\3\0\0\0f16K\0K\1tR.")
    refused(path, lambda: read_shape(path), "data type 'f16'")
    object_npy(path, b"\x80\4]" + b"]" * 2_200_000 + b".")
    refused(path, lambda: read_shape(path), "more than 2,097,152 steps")


def with_pickle(path: Path, pickled: Callable[[bytes], bytes]) -> None:
    """Write a checkpoint, and its pickle anew."""
    whole = io.BytesIO()
    torch.save({"state_dict": {"x": torch.ones(2)}, "z": 1}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, pickled(content) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize(
    "key",
    [
        b"K\1K\2\x86",  # a tuple: of such, any number can have one hash
        b"K\1K\2\x86q\x630h\x63",  # one that comes from the memo
        b"ctorch\nSize\n(K\1tR",
    ],
)
@pytest.mark.parametrize("code", [b"s", b"u"])
def test_checkpoints_indexed_by_other_than_texts_and_numbers_are_refused(
    key: bytes, code: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    inner = {b"s": b"}" + key + b"Ns", b"u": b"}(" + key + b"Nu"}[code]
    entry = b"X\1\0\0\0y" + inner
    with_pickle(path, lambda pickled: pickled[:-2] + entry + b"u.")
    refused(path, lambda: read_checkpoint(path), "a dictionary is indexed by a thing of kind")
    with_pickle(path, lambda pickled: pickled[:-2] + entry.replace(key, b"K\1") + b"u.")
    assert read_checkpoint(path)["y"] == {1: None}


def test_a_checkpoint_of_steps_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with_pickle(path, lambda pickled: pickled[:2] + b"]" * 1_100_000 + b".")
    refused(path, lambda: read_checkpoint(path), "more than 1,048,576 steps")


def test_archives_packed_otherwise_or_with_one_name_twice_are_refused(tmp_path: Path) -> None:
    path, array = tmp_path / "x.npz", io.BytesIO()
    np.save(array, np.ones((9, 3)))
    for how, count, why in ((zipfile.ZIP_BZIP2, 1, "packed"), (zipfile.ZIP_STORED, 2, "one name")):
        with zipfile.ZipFile(path, "w", how) as file, pytest.warns() if count > 1 else _nothing():
            for _ in range(count):
                file.writestr("points.npy", array.getvalue())
        refused(path, lambda: read_npz(path), why)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_pictures_texts_and_lists_without_end_are_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("L", (570, 570), 7).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    last = whole.rindex(b"\xff\xda")
    assert decode_image(whole, "whole.jpg").size == (570, 570)
    passes = whole[:-2] + whole[last:-2] * 500 + whole[-2:]
    refused(Path("x.jpg"), lambda: decode_image(passes, "x.jpg"), "a JPEG of 5.. passes")
    path = tmp_path / "x.yaml"
    path.write_text("a: 1" + ":59" * 1_300_000)
    refused(path, lambda: read_config(path), "a value of 3,900,001 characters")
    with pytest.raises(ValueError, match="a path of 80,005 characters") as error:
        resolve_inside(tmp_path, "a/" * 40_000 + "x.npy", path)
    assert len(str(error.value)) < 300
    path = tmp_path / "x.xyz"
    with path.open("wb") as file:
        file.write(b"1 2 3\n4 5 6\n")
        file.truncate(2**22)
    refused(path, lambda: read_shape(path), "bytes of zero")
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    refused(path, lambda: read_json(path), "more than the 0.2 that are read at once")


def test_layers_of_packed_points_are_not_believed(tmp_path: Path) -> None:
    path, cloud = tmp_path / "x.laz", laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    cloud.x, cloud.y, cloud.z = np.random.default_rng(0).uniform(
        0, 99, (3, 120_000)
    )  # three chunks
    cloud.write(path)
    assert len(read_shape(path).points) == 120_000
    whole = path.read_bytes()
    start = struct.unpack_from("<I", whole, 96)[0]
    for place in range(start + 42, start + 78, 4):
        path.write_bytes(whole[:place] + b"\xff" * 4 + whole[place + 4 :])
        refused(path, lambda: read_shape(path), r"layers of 4\d+ bytes are announced")
    path.write_bytes(whole[:96] + struct.pack("<I", 300) + whole[100:])
    refused(path, lambda: read_shape(path), "inside its header")


def test_files_beside_a_mesh_are_read_so_often_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.obj"
    path.write_text("mtllib a.mtl\nusemtl m0\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.mtl").write_text("".join(f"newmtl m{i}\nmap_Kd a.png\n" for i in range(9000)))
    refused(path, lambda: read_shape(path), "files beside it")


def test_weights_of_tensors_without_end_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    head = json.dumps({f"a{i}": empty for i in range(MAX_TENSORS + 1)}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    (tmp_path / "config.json").write_text(json.dumps({"network": {}}))
    refused(path, lambda: read_safetensors_checkpoint(tmp_path), "it has 65,537 tensors")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("v 0 0 0\nv 1 0\nv 0 1 0 5\nf 1 2 3\n", "fewer than three numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 2 3\n", "a face of vertex 0"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 9 9 9\n", "count back"),
    ],
)
def test_an_obj_that_would_be_misread_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.obj"
    path.write_text(text)
    refused(path, lambda: read_shape(path), why)
    path.write_text("v 0 0 0\nv 1 0 0 1\nv 0 10 0 .1 .2 .3\nvn 0 0 1\nf -3//1 -2//1 -1//1\n")
    assert len(read_shape(path, 9).points) == 9


def test_a_scene_with_what_is_not_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.glb"
    trimesh.creation.box().export(path)
    whole = path.read_bytes()
    length = struct.unpack_from("<I", whole, 12)[0]
    scene = json.loads(whole[20 : 20 + length])
    place = scene["meshes"][0]["primitives"][0]["attributes"]["POSITION"]

    def write(changed: dict[str, object]) -> None:
        text = json.dumps(scene | changed).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack(
            "<4sIII4s", b"glTF", 2, len(whole) - length + len(text), len(text), b"JSON"
        )
        path.write_bytes(head + text + whole[20 + length :])

    def accessor(**changes: object) -> dict[str, object]:
        rows = [dict(row) for row in scene["accessors"]]
        rows[place] |= changes
        return {"accessors": rows}

    write({})
    assert len(read_shape(path, 9).points) == 9
    fan = [{"primitives": [part | {"mode": 6} for part in scene["meshes"][0]["primitives"]]}]
    for changed, why in (
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "needs the extension"),
        (accessor(sparse={"count": 1}), "sparse"),
        (accessor(byteOffset=-4), "before their buffer"),
        (accessor(type="VEC4"), "three floats"),
        (accessor(componentType=5122), "three floats"),
        ({"meshes": fan}, "fans of triangles"),
    ):
        write(changed)
        refused(path, lambda: read_shape(path), why)


def test_tables_and_lists_that_shift_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for text, why in (
        ('path,label\n"a.npy,chair\nb.npy,chair\n', "unexpected end"),
        ("path,label\na.npy,chair,red\n", "line 2 has more cells"),
        ("path,label,label\na.npy,chair,sofa\n", "two columns have one name"),
    ):
        path.write_text(text)
        refused(path, lambda: ShapeFolder(path), why)
    path = tmp_path / "x.npy"
    np.save(path, np.ones((60, 3)))
    path.write_bytes(path.read_bytes().replace(b"(60, 3)", b"(10, 3)"))
    refused(path, lambda: read_shape(path), "bytes follow")


def test_sentences_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    objaverse(tmp_path)
    data = OpenShape(tmp_path)
    path = data.file_paths(0)[0]
    held = np.load(path, allow_pickle=True).item()
    for strange in (5, float("nan"), np.array(["a", "b"]), {"a": 1}, None):
        np.save(path, np.array(held | {"text": strange, "blip_caption": "a lamp"}))
        assert "a lamp" in data.texts(0)


@pytest.mark.parametrize(
    ("corners", "why"),
    [
        (["0 0 0", "1 0 0", "0 1 0", "1 1 0"], "its 1 facets have 4 corners"),
        (["0 0 0", "1 0", "0 1 0 5"], "its 1 facets have 1 corners"),
    ],
)
def test_an_stl_of_text_that_would_shift_is_refused(
    corners: list[str], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.stl"

    def write(corners: list[str]) -> None:
        lines = ["solid x", "facet normal 0 0 1", "outer loop", *(f"vertex {c}" for c in corners)]
        path.write_text("\n".join([*lines, "endloop", "endfacet", "endsolid x", ""]))

    write(corners)
    refused(path, lambda: read_shape(path), why)
    write(["0 0 0", "1 0 0", "0 1 0"])
    assert len(read_shape(path, 9).points) == 9


def test_an_off_of_more_lines_than_announced_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    assert len(read_shape(path, 9).points) == 9
    path.write_text("OFF\n2 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    refused(path, lambda: read_shape(path), "it has 4 lines, 3 are announced")
    path.write_text("4OFF\n1 0 0\n0 0 0 1\n")
    refused(path, lambda: read_shape(path), "four coordinates")


@pytest.mark.parametrize("kind", ["F", "I", "I;16"])
def test_pictures_of_more_than_8_bits_are_refused(kind: str) -> None:
    content = io.BytesIO()
    Image.new(kind, (8, 8)).save(content, "TIFF")
    refused(Path("x.tif"), lambda: decode_image(content.getvalue(), "x.tif"), "with 8 bits each")


def test_a_label_that_is_no_number_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {"path": ["a.npy", "b.npy"], "label": [float("nan"), 2.0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert ShapeFolder(path).labels.tolist() == [-1, 0]
