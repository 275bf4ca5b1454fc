"""Files made to break readers: each is refused by name, soon, and without taking memory."""

import io
import json
import multiprocessing
import pickle
import re
import resource
import shutil
import signal
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import laspy
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import trimesh
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.reader import METADATA_KEY
from recon.checkpoints.run_config import read_config
from recon.checkpoints.writer import write_pretrained_folder
from recon.cli.config_dir import conf_dir
from recon.data.dataset import PointCloudDataset
from recon.data.datasets.few_shot import FewShotFold
from recon.data.datasets.folder import ShapeFolder
from recon.data.datasets.furniture import ARCHIVE_NAME, Furniture, asset_path, read_archive
from recon.data.datasets.furniture_parts import PARTS_ARCHIVE_NAME, FurnitureParts
from recon.data.datasets.modelnet import ModelNet
from recon.data.datasets.objaverse import OpenShape
from recon.data.datasets.s3dis import S3DISRooms
from recon.data.datasets.scanobjectnn import ScanObjectNN
from recon.data.datasets.shapenet import ShapeNet
from recon.data.datasets.shapenetpart import ShapeNetPart
from recon.data.io.feature_table import FeatureRow, ResumableParquetWriter, read_feature_table
from recon.data.io.image_checks import decode_image
from recon.data.io.parquet import read_columns
from recon.data.io.safe_pickle import read_pickle
from recon.data.io.shape import read_shape
from recon.data.prepared.dataset import INDEX_NAME, PreparedDataset, prepared_splits
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections
from recon.prepare import prepare
from recon.teachers.cached import CachedTeacher, FeatureCache, write_cache
from trees import (
    few_shot,
    meshes,
    modelnet,
    modelnet_cache,
    objaverse,
    picture,
    s3dis,
    scanobjectnn,
    shapenetpart,
    table_of_shapes,
)

SECONDS = 20
"""That reading any of these small files may take on a busy machine."""


def read_all(dataset: PointCloudDataset) -> None:
    """Read what a training would."""
    for index in range(len(dataset)):
        dataset.cloud(index)
        if type(dataset).texts is not PointCloudDataset.texts:
            dataset.texts(index)
        if type(dataset).image is not PointCloudDataset.image and not isinstance(
            dataset, ShapeFolder
        ):
            dataset.image(index)


def shape_files(root: Path) -> None:
    """A box, or points, in each format."""
    box, points = trimesh.creation.box(), np.random.default_rng(0).normal(size=(60, 3))
    root.mkdir()
    for ending in ("ply", "obj", "off", "stl", "glb"):
        box.export(root / f"box.{ending}")
    (root / "text.ply").write_bytes(box.export(file_type="ply", encoding="ascii"))
    np.save(root / "a.npy", points)
    np.save(root / "object.npy", {"points": points, "colors": points**2}, allow_pickle=True)
    np.savez_compressed(root / "a.npz", points=points, normals=points)
    np.savetxt(root / "a.xyz", points)
    for ending in ("las", "laz"):
        las = laspy.LasData(laspy.LasHeader(point_format=3, version="1.4"))
        las.x, las.y, las.z = points.T
        las.write(root / f"a.{ending}")


def tables(root: Path) -> None:
    root.mkdir()
    np.save(root / "a.npy", np.random.default_rng(0).normal(size=(60, 3)))
    picture(root / "a.png")
    row = {"path": "a.npy", "label": "chair", "caption": "one", "image": "a.png"}
    table_of_shapes(root / "list.csv", [row])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), root / "list.parquet")


def shapenet(root: Path) -> None:
    for folder in ("ShapeNet-55", "shapenet_pc", "shapenet_img"):
        (root / folder).mkdir(parents=True)
    np.save(root / "shapenet_pc" / "02691156-a.npy", np.random.default_rng(0).normal(size=(64, 3)))
    picture(root / "shapenet_img" / "02691156-a.png")
    for split in ("train", "test"):
        (root / "ShapeNet-55" / f"{split}.txt").write_text("02691156-a.npy\n")
    table = {"catalogue": {"0": 2691156}, "describe": {"0": "airplane"}}
    (root / "shapenet55.json").write_text(json.dumps(table))


def models(root: Path) -> None:
    """A few rows of the embedded data set."""
    root.mkdir()
    held = dict(np.load(asset_path(ARCHIVE_NAME)))
    known = dict(np.load(asset_path(PARTS_ARCHIVE_NAME)))
    rows = known["index"][held["split"][known["index"]] == 0][:4]
    few = {k: v[rows] if len(v) == len(held["split"]) else v for k, v in held.items()}
    np.savez_compressed(root / ARCHIVE_NAME, **few)
    own = np.isin(known["index"], rows)
    parts = {k: v[own] if len(v) == len(own) else v for k, v in known.items()}
    np.savez_compressed(root / PARTS_ARCHIVE_NAME, **{**parts, "index": np.arange(4)})


def read_models(root: Path) -> None:
    read_archive.cache_clear()
    read_all(Furniture(["train"], root=root))
    read_all(FurnitureParts("train", root=root))


def prepared(root: Path) -> None:
    meshes(root / "own", 3)
    options = [
        "data=folder",
        f"data.root={root / 'own'}",
        "data.num_surface_points=50",
        f"out={root / 'out'}",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        prepare(compose("prepare", [*options, "num_workers=1"]))
    shutil.rmtree(root / "own")


def read_prepared(root: Path) -> None:
    for split in prepared_splits(root / "out"):
        dataset = PreparedDataset(root / "out", split)
        for index in range(len(dataset)):
            dataset.cloud(index)
            dataset.image(index)
        dataset.find_damaged_files()


def cache(root: Path) -> None:
    root.mkdir()
    features = torch.randn(3, 2, 4)
    held = FeatureCache(["a", "b", "c"], features, features.mean((0, 1)), features.std(), "someone")
    write_cache(root / "image.safetensors", held)


class Reads(CachedTeacher):
    name_key = "id"

    def forward(self, batch: Any) -> torch.Tensor:
        return self.look_up(batch["id"])


def network() -> ContrastiveNetwork:
    sizes = {"depth": 1, "heads": 2, "patch_widths": (8, 8, 8)}
    return ContrastiveNetwork(PatchGrouper(8, 6), Encoder(8, **sizes), Projections(8, {"image": 5}))


def checkpoint(root: Path) -> None:
    root.mkdir()
    model = network()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    held = {"state_dict": state, METADATA_KEY: build_metadata(model)}
    torch.save(held, root / "last.ckpt")
    torch.save(held, root / "legacy.ckpt", _use_new_zipfile_serialization=False)


def saved(root: Path) -> None:
    write_pretrained_folder(network(), root, {"name": "x"})


def features(root: Path) -> None:
    root.mkdir()
    table = ResumableParquetWriter(root / "x.parquet", {"points": 3}, {})
    preview, vector = np.zeros((4, 3), np.int8), {"pooled": np.ones(5, np.float32)}
    rows = [FeatureRow(name, "chair", 9, 1, preview, None, vector) for name in "abc"]
    table.write_part(rows, {})
    table.finish(dict.fromkeys("abc", 1))


def each(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    return lambda root: [read(path) for path in sorted(root.iterdir())] and None


def splits(open_: Callable[..., PointCloudDataset], *names: str) -> Callable[[Path], None]:
    return lambda root: [read_all(open_(root, name)) for name in names] and None


SETS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], None]]] = {
    "shapes": (shape_files, each(lambda path: read_shape(path, 20))),
    "tables": (
        tables,
        lambda root: (
            [read_all(ShapeFolder(root / f"list{e}")) for e in (".csv", ".parquet")] and None
        ),
    ),
    "shapenet": (shapenet, splits(ShapeNet, "train", "test")),
    "modelnet": (lambda root: modelnet(root, points=30), splits(ModelNet, "train", "test")),
    "modelnet_cache": (modelnet_cache, splits(ModelNet, "train")),
    "few_shot": (
        few_shot,
        lambda root: read_all(FewShotFold(root, "train", way=5, shot=2)),
    ),
    "scanobjectnn": (scanobjectnn, splits(ScanObjectNN, "train", "test")),
    "shapenetpart": (shapenetpart, splits(ShapeNetPart, "train", "val", "test")),
    "s3dis": (lambda root: s3dis(root, points=40), splits(S3DISRooms, "Area_1", "Area_5")),
    "objaverse": (objaverse, splits(OpenShape, "lvis")),
    "furniture": (models, read_models),
    "prepared": (prepared, read_prepared),
    "cache": (cache, each(lambda path: Reads(path, 4, standardize=True))),
    "checkpoint": (checkpoint, each(load)),
    "saved": (saved, lambda root: load(root) and None),
    "features": (features, each(lambda path: read_feature_table(path, ["pooled"]))),
}


@contextmanager
def soon(seconds: int = SECONDS) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NUMBERS = (0, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("number"), st.floats(0, 1), st.sampled_from(NUMBERS)),
        st.tuples(st.just("digits"), st.floats(0, 1), st.sampled_from([*NUMBERS, -1, 7])),
        st.tuples(st.just("twice"), st.floats(0, 1), st.integers(1, 4096)),
    ),
    min_size=1,
    max_size=3,
)


def changed(content: bytes, changes: list[tuple[str, float, Any]]) -> bytes:
    """Damage some bytes: also numbers of binary headers, and those that are written as text."""
    for kind, where, what in changes:
        # Most of what is announced stands near the beginning, or at the end.
        place = int((where**3 if where < 0.9 else 1 - (1 - where) ** 2) * len(content))
        if kind == "byte":
            content = content[:place] + bytes([what]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place]
        elif kind == "insert":
            content = content[:place] + what + content[place:]
        elif kind == "number":
            packed = struct.pack("<Q", what)
            content = content[:place] + packed[: 8 if what >= 2**32 else 4] + content[place + 8 :]
        elif kind == "twice":
            content = content[:place] + content[place : place + what] * 2 + content[place + what :]
        elif found := [*re.finditer(rb"\d+", content[:20_000])]:
            digits = found[int(where * (len(found) - 1))]
            content = content[: digits.start()] + b"%d" % what + content[digits.end() :]
    return content


@pytest.fixture(params=SETS)
def original(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A data set, or some files, that can be read."""
    write, read = SETS[request.param]
    write(tmp_path / "root")
    read(tmp_path / "root")
    return request.param, tmp_path / "root"


def check(name: str, root: Path, choice: float, changes: list[tuple[str, float, Any]]) -> None:
    """Damage one of a set's files; reading all of it succeeds, or names a file below `root`."""
    read = SETS[name][1]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(choice * (len(files) - 1))]
    content = path.read_bytes()
    path.write_bytes(changed(content, changes))
    said = f"{root}"
    try:
        with soon(), np.errstate(all="ignore"):
            read(root)
    except (ValueError, OSError) as error:
        said = str(error)
    finally:
        path.write_bytes(content)
    assert str(root) in said, f"{path.name}: no file is named: {said}"
    assert "Traceback" not in said


def fuzz(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[*HealthCheck],
    )


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_named(original: tuple[str, Path]) -> None:
    @fuzz(6)
    @given(st.floats(0, 1), CHANGES)
    def run(choice: float, changes: list[tuple[str, float, Any]]) -> None:
        check(*original, choice, changes)

    run()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files_are_read_or_named(original: tuple[str, Path]) -> None:
    @fuzz(200)
    @given(st.floats(0, 1), CHANGES)
    def run(choice: float, changes: list[tuple[str, float, Any]]) -> None:
        check(*original, choice, changes)

    run()


def ply(head: str, body: bytes = b"") -> bytes:
    kind = "binary_little_endian" if body else "ascii"
    return f"ply\nformat {kind} 1.0\n{head}end_header\n".encode() + (body or b"0 0 0\n")


def glb(scene: dict[str, Any], binary: bytes = b"\0" * 64) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}, **scene}).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def mesh(count: int, **accessor: Any) -> dict[str, Any]:
    return {
        "accessors": [{"componentType": 5126, "type": "VEC3", "count": count, **accessor}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],
        "buffers": [{"byteLength": 64}],
        "bufferViews": [{"buffer": 0, "byteLength": 60}],
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
    }


def las(**changed: tuple[int, str, int]) -> bytes:
    file = io.BytesIO()
    data = laspy.LasData(laspy.LasHeader(point_format=3, version="1.4"))
    data.x = data.y = data.z = np.arange(5.0)
    data.write(file)
    content = bytearray(file.getvalue())
    for place, kind, value in changed.values():
        struct.pack_into(kind, content, place, value)
    return bytes(content)


def doubled() -> bytes:
    """A pickle whose lists each stand twice in the next: a few hundred bytes, 2^60 numbers."""
    inner: Any = [1, 2]
    for _ in range(60):
        inner = [inner, inner]
    return pickle.dumps({"points": inner, "rgb": inner})


def bomb(announced: int | None) -> bytes:
    """An archive of 264 MiB of zeros and more; `announced` is the size that its header gives."""
    file = io.BytesIO()
    about = {"shape": (33 * 2**20,), "fortran_order": False, "descr": "<f8"}
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("points.npy", "w") as member,
    ):
        np.lib.format.write_array_header_2_0(member, about)
        for _ in range(17):
            member.write(bytes(2**24))
    content = file.getvalue()
    if announced is not None:  # in the directory at the end, which is what readers go by
        place = content.rindex(b"PK\x01\x02")
        content = content[: place + 24] + struct.pack("<I", announced) + content[place + 28 :]
    return content


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    content = file.getvalue()
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


XYZ = "property float x\nproperty float y\nproperty float z\n"
FACES = "property list uchar int vertex_indices\n"


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def laz(place: int, kind: str, value: int, *, in_table: bool = False) -> bytes:
    """Packed points; a number is changed of how, or in the table of where their chunks lie."""
    file, data = io.BytesIO(), laspy.LasData(laspy.LasHeader(point_format=3, version="1.4"))
    data.x = data.y = data.z = np.arange(50.0)
    data.write(file, do_compress=True)
    content = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", content, 96)
    told = content.index(b"laszip encoded") + 52
    table = struct.unpack_from("<q", content, start)[0]
    struct.pack_into(kind, content, (table if in_table else told) + place, value)
    return bytes(content)


LIARS: dict[str, Callable[[], bytes]] = {
    "rows.ply": lambda: ply("element vertex 99999999999\nproperty float x\n"),
    "nothing.ply": lambda: ply("element none 99999999999999\nelement vertex 1\nproperty float x\n"),
    "lists.ply": lambda: ply(
        "element vertex 1\nproperty float x\nelement face 4000000000\n"
        "property list uint int vertex_indices\n", b"\xff" * 64,
    ),
    "list.ply": lambda: ply(
        "element vertex 1\nproperty float x\nproperty float y\nproperty float z\nelement face 1\n"
        "property list uint int vertex_indices\n", b"\0" * 12 + b"\xff" * 64,
    ),
    "negative.ply": lambda: ply("element vertex -5\nproperty float x\n"),
    "zeros.glb": lambda: glb(mesh(2**33)),
    "view.glb": lambda: glb(mesh(2**33, bufferView=0)),
    "circle.glb": lambda: glb(
        {**mesh(5, bufferView=0), "nodes": [{"children": [1]}, {"children": [0], "mesh": 0}]}
    ),
    "shared.glb": lambda: glb(
        {**mesh(5, bufferView=0),
         "nodes": [{"children": [n + 1, n + 1]} for n in range(60)] + [{"mesh": 0}]}
    ),
    "instances.glb": lambda: glb(
        {**mesh(20_000, bufferView=0), "bufferViews": [{"buffer": 0, "byteLength": 240_000}],
         "scenes": [{"nodes": [*range(20_000)]}], "nodes": [{"mesh": 0}] * 20_000},
        bytes(240_000),
    ),
    "long.glb": lambda: struct.pack("<4sIIII", b"glTF", 2, 2**32 - 1, 2**32 - 1, 0x4E4F534A),
    "points.las": lambda: las(count=(247, "<Q", 2**40)),
    "records.las": lambda: las(count=(100, "<I", 2**32 - 1)),
    "more.las": lambda: las(count=(243, "<I", 2**32 - 1)),
    "start.las": lambda: las(count=(96, "<I", 2**32 - 1)),
    "doubled.npy": lambda: object_npy(doubled()),
    "bomb.npz": lambda: bomb(None),
    "lying_bomb.npz": lambda: bomb(1000),
    "faces.obj": lambda: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999\n",
    "faces.off": lambda: b"OFF\n99999999999 1 0\n0 0 0\n",
    "materials.obj": lambda: b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + b"".join(
        b"usemtl m%d\nf 1 2 3\n" % number for number in range(10_000)
    ),
    "zeros.obj": lambda: bytes(2**25),
    "zeros.stl": lambda: bytes(2**25),
    "empty_faces.ply": lambda: ply(f"element vertex 3\n{XYZ}element face 3000000\n{FACES}",
                                   np.eye(3, dtype="<f4").tobytes() + bytes(3_000_000)),
    "empty_lines.ply": lambda: ply(f"element vertex 3\n{XYZ}element face 3000000\n{FACES}")
    + b"0 0 1\n0 1 0\n" + b"0\n" * 3_000_000,
    "corners.off": lambda: b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1 2\n",
    "names.npz": lambda: npz({f"a{number:0200d}": np.zeros(1) for number in range(900)}),
    "chunk_items.laz": lambda: laz(36, "<H", 2**16 - 1),
    "huge.stl": lambda: bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(100),
}  # fmt: skip


def object_npy(pickled: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": (), "fortran_order": False, "descr": "|O"})
    return file.getvalue() + pickled


@contextmanager
def frugal(limit: int = 2**26) -> Iterator[None]:
    """Fail where more memory was asked for than `limit` bytes, used or not."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / 2**20:.0f} MiB were taken"


@pytest.mark.parametrize("name", LIARS)
def test_what_is_announced_is_not_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(LIARS[name]())
    with soon(5), frugal(), pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_shape(path, 20)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("count", [2**16, 2**32 - 1])
def test_chunks_that_do_not_fit_are_refused_before_they_end_the_program(
    count: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.laz"
    path.write_bytes(laz(4, "<I", count, in_table=True))
    with pytest.raises(ValueError, match=rf"a\.laz: .*{count} chunks"):
        read_shape(path, 20)
    path.write_bytes(laz(12, "<I", 2**31 - 1))  # one chunk, as long as can be told
    np.testing.assert_allclose(read_shape(path, 20).points, np.arange(50)[:, None].repeat(3, 1))


def test_packed_points_are_read_in_forked_workers(tmp_path: Path) -> None:
    path = tmp_path / "a.laz"
    path.write_bytes(laz(12, "<I", 50_000))  # by threads, which a fork does not have
    read_shape(path, 20)
    with soon(60), multiprocessing.get_context("fork").Pool(1) as pool:
        assert len(pool.apply(read_shape, (path, 20)).points) == 50


HEAD = f"ply\nformat binary_little_endian 1.0\ncomment Gr\u00f6\u00dfe\nelement vertex 3\n{XYZ}"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n  \n"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin1"])
def test_comments_and_blank_ends_of_ply_files_are_no_fault(
    encoding: str, end: str, tmp_path: Path
) -> None:
    path, corners = tmp_path / "a.ply", np.eye(3, dtype="<f4")
    path.write_bytes(f"{HEAD}end_header\n".encode(encoding) + corners.tobytes() + end.encode())
    np.testing.assert_array_equal(read_shape(path, 20).points, corners)
    faces = f"{HEAD}element face 1\n{FACES}end_header\n".encode(encoding)
    path.write_bytes(faces + corners.tobytes() + struct.pack("<B3i", 3, 0, 1, 2) + end.encode())
    assert len(read_shape(path, 20).points) == 20
    path.write_bytes(f"{HEAD}end_header\n".encode(encoding) + corners.tobytes() + b"\n.")
    with pytest.raises(ValueError, match=r"a\.ply: .* bytes follow"):
        read_shape(path, 20)


def test_textures_are_unpacked_once_and_counted_together(tmp_path: Path) -> None:
    lines = ["mtllib a.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 0 1"]
    materials = []
    for number in range(9):
        Image.new("L", (4000, 4000), 10 * number).save(tmp_path / f"{number}.png")
        materials += [f"newmtl m{number}", f"map_Kd {number}.png"]
        lines += [f"usemtl m{number}", "f 1/1 2/2 3/3"]
    (tmp_path / "a.mtl").write_text("\n".join(materials))
    (tmp_path / "a.obj").write_text("\n".join(lines))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with soon(), pytest.raises(ValueError, match=r"a\.obj: .*textures of 144,000,000 pixels"):
        read_shape(tmp_path / "a.obj", 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    scene = trimesh.Scene()
    image = Image.new("RGB", (4000, 4000), (200, 3, 7))
    visual = trimesh.visual.TextureVisuals(np.random.default_rng(0).random((8, 2)), image=image)
    box = trimesh.Trimesh(*_corners(), visual=visual, process=False)
    for number in range(200):
        scene.add_geometry(box, node_name=f"n{number}", geom_name="box")
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    with soon():
        colors = read_shape(tmp_path / "a.glb", 2000).colors
    assert colors is not None
    assert (colors == (200, 3, 7)).all()


def _corners() -> tuple[np.ndarray, np.ndarray]:
    box = trimesh.creation.box()
    return box.vertices, box.faces


@pytest.mark.parametrize("minus", ["\u2212", "\u2013", "\uff0d"])
def test_signs_that_typography_writes_are_not_lost(minus: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(f"{minus}1 2 3\n4 5 6\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.xyz: .*digits or signs"):
        read_shape(path)
    path.write_text(f"# points 1{minus}2\n1 2 3\n4 5 6\n", encoding="utf-8")
    assert len(read_shape(path).points) == 2


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_larger_than_life_are_refused(size: tuple[int, int]) -> None:
    with soon(5), frugal(), pytest.raises(ValueError, match=r"a\.png: not a readable picture"):
        decode_image(png(*size), "a.png")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["lists", "tuples", "keys", "sets"])
def test_pickles_that_double_are_refused(kind: str, protocol: int, tmp_path: Path) -> None:
    inner: Any = (1, 2)
    for _ in range(60):
        inner = [inner, inner] if kind == "lists" else (inner, inner)
    held = {(1,): 1} if kind == "keys" else [{1, 2}] if kind == "sets" else [inner]
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(held, protocol))
    with soon(5), pytest.raises(ValueError, match=r"bad\.pkl: refused"):
        read_pickle(path)


def test_labels_are_numbers_and_nothing_is_looked_for_in_them(tmp_path: Path) -> None:
    clouds = [np.zeros((4, 6), np.float32)]
    modelnet_cache(tmp_path)
    (path,) = tmp_path.rglob("*.dat")
    path.write_bytes(pickle.dumps([clouds, [[[0]]]]))
    with pytest.raises(ValueError, match=r"fps\.dat: .*a list is no number"):
        ModelNet(tmp_path)


def test_data_in_other_files_are_not_read(tmp_path: Path) -> None:
    scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "training_objectdataset.h5"
    (tmp_path / "secret").write_bytes(bytes(2048 * 12))
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(1, np.int32)
        file.create_dataset(
            "data", (1, 2048, 3), np.float32, external=[(str(tmp_path / "secret"), 0, 2048 * 12)]
        )
    with pytest.raises(ValueError, match=r"objectdataset\.h5: .*`data` lies in other files"):
        ScanObjectNN(tmp_path)
    layout = h5py.VirtualLayout((1, 2048, 3), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "main_split" / "test_objectdataset.h5"), "data",
                                   shape=(15, 2048, 3))[:1]  # fmt: skip
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(1, np.int32)
        file.create_virtual_dataset("data", layout)
    with pytest.raises(ValueError, match="lies in other files"):
        ScanObjectNN(tmp_path)


def test_lists_do_not_lead_out_of_their_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.zeros((64, 3)))
    root = tmp_path / "shapenet"
    shapenet(root)
    (root / "ShapeNet-55" / "train.txt").write_text("02691156-/../../../secret.npy\n")
    with pytest.raises(ValueError, match=r"train\.txt: lists .*no path inside"):
        ShapeNet(root, "train")
    root = tmp_path / "modelnet"
    modelnet(root)
    folder = root / "modelnet40_normal_resampled"
    (folder / "modelnet40_shape_names.txt").write_text("../../secret\n")
    (folder / "modelnet40_train.txt").write_text("../../secret_0001\n")
    with pytest.raises(ValueError, match=r"modelnet40_train\.txt: lists .*no path inside"):
        ModelNet(root)
    root = tmp_path / "prepared"
    prepared(root)
    path = root / "out" / "all" / INDEX_NAME
    index = json.loads(path.read_text())
    index["files"][0]["name"] = "../../../secret.npy"
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json: .*which no preparation writes"):
        PreparedDataset(root / "out", "all")


def test_meshes_take_nothing_from_outside_their_folder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (250, 3, 7)).save(tmp_path / "secret.png")
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 0.98 0.01 0.02\n")
    inside = tmp_path / "shapes"
    inside.mkdir()
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    (inside / "a.mtl").write_text("newmtl a\nmap_Kd ../secret.png\n")
    for library in ("a.mtl", "../secret.mtl", f"{tmp_path}/secret.mtl"):
        (inside / "a.obj").write_text(f"mtllib {library}\n{corners}")
        colors = read_shape(inside / "a.obj", 20).colors
        assert colors is None or not (colors[:, 0] >= 249).any()
    uri = {"buffers": [{"byteLength": 60, "uri": "../secret.png"}]}
    (inside / "a.glb").write_bytes(glb({**mesh(5, bufferView=0), **uri}))
    with pytest.raises(ValueError, match=r"a\.glb: not a readable shape"):
        read_shape(inside / "a.glb", 20)


def _torch_archive(path: Path, compression: int) -> None:
    """Write a checkpoint anew, its parts packed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def hostile_checkpoints() -> dict[str, Callable[[dict[str, Any]], None]]:
    """What is done to a checkpoint's content before it is written."""
    weight = "model.encoder.norm.weight"

    def state(value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
        return lambda held: held["state_dict"].__setitem__(weight, value)

    def told(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda held: held[METADATA_KEY].__setitem__(name, value)

    return {
        "wide": state(torch.zeros(1).expand(10**9)),
        "widths": state(torch.zeros(50_000)),  # a network of that width: 10 GB a layer
        "sparse": state(torch.sparse_coo_tensor(size=(10**9,))),
        "number": lambda held: held["state_dict"].__setitem__(weight, 3),
        "names": lambda held: held["state_dict"].__setitem__(3, torch.zeros(1)),
        "no_state": lambda held: held.__setitem__("state_dict", 3),
        "list": lambda held: held.__setitem__(METADATA_KEY, [1]),
        "heads": told("num_heads", 7),
        "text": told("num_groups", "8"),
        "groups": told("num_groups", 10**15),
        "negative": told("group_size", -1),
        "blocks": lambda held: held["state_dict"].update(
            {f"model.encoder.blocks.{n}.norm1.weight": torch.ones(8) for n in range(20_000)}
        ),
        "many": lambda held: held["state_dict"].update(
            {f"model.x{number}": torch.ones(1) for number in range(5000)}
        ),
        "shown": lambda held: held["state_dict"].__setitem__("model.\x1b[2J\n", torch.ones(1)),
    }


@pytest.mark.parametrize("name", hostile_checkpoints())
def test_checkpoints_that_lie_are_named(name: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "root")
    path = tmp_path / "root" / "last.ckpt"
    held = torch.load(path, weights_only=True)
    hostile_checkpoints()[name](held)
    torch.save(held, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with soon(10), pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def test_packed_and_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    checkpoint(tmp_path / "root")
    path = tmp_path / "root" / "last.ckpt"
    _torch_archive(path, zipfile.ZIP_STORED)
    load(path)
    _torch_archive(path, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"last\.ckpt: .*unpacks to more than it holds"):
        load(path)


def test_checkpoints_that_torch_reads_in_another_way_are_named(tmp_path: Path) -> None:
    checkpoint(tmp_path / "root")
    path, other = tmp_path / "root" / "last.ckpt", tmp_path / "calls.ckpt"
    torch.save({"state_dict": {}, "calls": bytearray(3)}, other)
    with pytest.raises(ValueError, match=r"calls\.ckpt: .*bytearray"):
        load(other)
    with zipfile.ZipFile(other) as archive:
        calls = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("/data.pkl"))
    (calling,) = (content for name, content in calls.items() if name.endswith("/data.pkl"))
    shouted = pickled.replace("data.pkl", "DATA.PKL")
    lies = {
        "shouted": {name: parts[name] for name in parts if name != pickled} | {shouted: calling},
        "both": parts | {shouted: calling},
    }
    for name, members in lies.items():
        with zipfile.ZipFile(tmp_path / f"{name}.ckpt", "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    whole = path.read_bytes()
    (tmp_path / "behind.ckpt").write_bytes(other.read_bytes() + whole)
    torch.save({"calls": bytearray(3)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with (tmp_path / "old.ckpt").open("ab") as file:
        file.write(whole)
    for name in ("shouted", "both", "behind", "old"):
        with pytest.raises(ValueError, match=rf"{name}\.ckpt: "):
            load(tmp_path / f"{name}.ckpt")


@pytest.mark.parametrize(
    "kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(),
             pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
             pyarrow.list_(pyarrow.string())], ids=str
)  # fmt: skip
def test_texts_are_no_longer_than_their_file_can_hold(
    kind: pyarrow.DataType, tmp_path: Path
) -> None:
    def write(name: str, texts: list[str]) -> Path:
        lists = pyarrow.types.is_list(kind)
        values = pyarrow.array([[text] for text in texts] if lists else texts)
        column = values.dictionary_encode() if pyarrow.types.is_dictionary(kind) else values
        pyarrow.parquet.write_table(pyarrow.table({"a": column.cast(kind)}), tmp_path / name)
        return tmp_path / name

    with soon(5), pytest.raises(ValueError, match=r"long\.parquet: "):
        read_columns(write("long.parquet", ["x" * 2**20] * 200), ["a"])
    if not pyarrow.types.is_list(kind):
        short = read_columns(write("short.parquet", ["a", "b", "a"]), ["a"])
        assert short["a"].to_pylist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("told", "column"),
    [
        ([1], None),
        ({"about": 3}, None),
        ("[" * 100_000, None),
        (None, ["a", "b", "c"]),
        (None, [[1.0], [1.0, 2.0], [3.0]]),
        (None, [[1.0], None, [3.0]]),
        (None, [[1.0], [float("nan")], [3.0]]),
    ],
)
def test_tables_of_features_that_lie_are_named(told: Any, column: Any, tmp_path: Path) -> None:
    features(tmp_path / "root")
    path = tmp_path / "root" / "x.parquet"
    table = pyarrow.parquet.read_table(path)
    assert read_feature_table(path, ["pooled"]).columns["pooled"].shape == (3, 5)
    if told is not None:
        text = told if isinstance(told, str) else json.dumps(told)
        table = table.replace_schema_metadata({key: text for key in table.schema.metadata})
    else:
        metadata = table.schema.metadata
        place = table.schema.get_field_index("pooled")
        table = table.set_column(place, "pooled", [column]).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path)
    with soon(5), pytest.raises(ValueError, match=re.escape(str(path))):
        read_feature_table(path, ["pooled"])


def test_a_cache_of_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    nothing = FeatureCache([], torch.zeros(0, 1, 4), torch.zeros(4), torch.tensor(1.0), "someone")
    write_cache(path, nothing)
    with pytest.raises(ValueError, match=r"a\.safetensors: not a teacher cache"):
        Reads(path, 4, standardize=True)


def test_a_configuration_of_too_many_parts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: [" + "1," * 2**20 + "1]")
    with soon(), pytest.raises(ValueError, match=r"config\.yaml: .*more than 20,000 parts"):
        read_config(path)


def test_a_configuration_without_end_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "root")
    (tmp_path / "root" / "config.json").write_text("[" * 100_000)
    with soon(5), pytest.raises(ValueError, match=r"config\.json: not JSON"):
        load(tmp_path / "root")


@pytest.mark.parametrize("name", ["points", "colors", "icons", "label"])
def test_models_without_one_of_their_arrays_are_named(name: str, tmp_path: Path) -> None:
    models(tmp_path / "root")
    held = dict(np.load(tmp_path / "root" / ARCHIVE_NAME))
    for rest in ({k: v for k, v in held.items() if k != name}, held | {name: held[name][:1]}):
        np.savez(tmp_path / "root" / ARCHIVE_NAME, **rest)
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / "root" / ARCHIVE_NAME))):
            read_models(tmp_path / "root")


@pytest.mark.parametrize("key", ["name", "clouds", "bytes", "sha256"])
def test_an_index_that_lacks_something_of_a_file_is_named(key: str, tmp_path: Path) -> None:
    prepared(tmp_path / "root")
    path = tmp_path / "root" / "out" / "all" / INDEX_NAME
    index = json.loads(path.read_text())
    del index["files"][0][key]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json: not a readable index"):
        read_prepared(tmp_path / "root")


def _overlong(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """A chunk of zeros that unpacks to 256 times its announced size and more."""
    data = file.create_dataset(name, shape, np.float32, chunks=shape, compression="gzip")
    data.id.write_direct_chunk((0,) * len(shape), zlib.compress(bytes(2**28), 1))


def _twice(file: h5py.File) -> None:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((1, 2048, 3))
    layout.set_deflate(9)
    layout.set_deflate(9)
    space = h5py.h5s.create_simple((1, 2048, 3))
    data = h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, layout)
    data.write_direct_chunk((0, 0, 0), zlib.compress(zlib.compress(bytes(2**28), 1), 9))


HDF5: dict[str, Callable[[h5py.File], Any]] = {
    "chunk": lambda file: _overlong(file, "data", (1, 2048, 3)),
    "chunk_of_labels": lambda file: _overlong(file, "label", (1,)),
    "packed_twice": _twice,
    "wide_chunk": lambda file: file.create_dataset(
        "data", (1, 2048, 3), np.float32, chunks=(3000, 2048, 3), maxshape=(None,) * 3,
        compression="gzip", data=np.ones((1, 2048, 3)),
    ),
    "lists": lambda file: file.create_dataset("data", (1, 20, 3), h5py.vlen_dtype(np.float32)),
    "texts": lambda file: file.create_dataset("data", (1, 20, 3), h5py.string_dtype()),
}  # fmt: skip


@pytest.mark.parametrize("name", HDF5)
def test_clouds_of_hdf5_take_no_more_than_they_announce(name: str, tmp_path: Path) -> None:
    scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "training_objectdataset.h5"
    with h5py.File(path, "w") as file:
        HDF5[name](file)
        if "label" not in file:
            file["label"] = np.zeros(1, np.int32)
        if "data" not in file:
            file["data"] = np.ones((1, 2048, 3), np.float32)
        file["size"] = np.frombuffer(np.random.default_rng(0).bytes(2**21), np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with soon(), pytest.raises(ValueError, match=r"training_objectdataset\.h5: not a readable"):
        ScanObjectNN(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


@pytest.mark.parametrize("numbers", ["floats", "any"])
@pytest.mark.parametrize("how", [{}, {"shuffle": True, "fletcher32": True}, {"chunks": (1, 99, 3)}])
def test_packed_clouds_of_hdf5_are_read(how: dict[str, Any], numbers: str, tmp_path: Path) -> None:
    scanobjectnn(tmp_path)
    rng = np.random.default_rng(0)
    clouds = rng.integers(0, 2**31, (15, 2048, 3)).astype(np.int32)  # cannot be made shorter
    if numbers == "floats":
        clouds = rng.normal(size=clouds.shape).round(1)
    with h5py.File(tmp_path / "main_split" / "training_objectdataset.h5", "r+") as file:
        del file["data"]
        file.create_dataset("data", data=clouds, compression="gzip", **how)
    found = ScanObjectNN(tmp_path)
    assert len(found) == 15
    np.testing.assert_array_equal(found.cloud(7).points, clouds[7].astype(np.float32))
