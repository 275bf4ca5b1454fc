"""ROS recordings: files of other writers, topics, frames, layouts of messages, wrong sizes."""

import sqlite3
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from recon.data.io.points import ros_checks
from recon.data.io.points.ros import convert_message, read_ros
from recon.data.io.points.ros_checks import check_recording
from recon.data.io.points.table import ReadOptions
from recon.data.io.shape import find_shape_files, read_content, read_shape

FILES = Path(__file__).parents[1] / "files" / "ros"
TYPE = "sensor_msgs/msg/PointCloud2"
STORE = get_typestore(Stores.ROS2_HUMBLE)


def make_message(rows: np.ndarray, width: int | None = None, **changes: Any) -> Any:
    """Return a message of a structured array without padding between rows."""
    numbers = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
    names = rows.dtype.names or ()
    fields = []
    for name in names:
        kind, offset = rows.dtype.fields[name][:2]
        count = kind.shape[0] if kind.shape else 1
        number = numbers[kind.base.str[1:]]
        fields.append(STORE.types["sensor_msgs/msg/PointField"](name, offset, number, count))
    width, step = width or len(rows), rows.dtype.itemsize
    time = STORE.types["builtin_interfaces/msg/Time"](1, 2)
    values = {
        "header": STORE.types["std_msgs/msg/Header"](time, "lidar"), "height": len(rows) // width,
        "width": width, "fields": fields, "is_bigendian": rows.dtype[0].str[0] == ">",
        "point_step": step, "row_step": step * width,
        "data": np.frombuffer(rows.tobytes(), np.uint8), "is_dense": True,
    }  # fmt: skip
    return STORE.types[TYPE](**{**values, **changes})


def make_rows(count: int = 4, order: str = "<") -> np.ndarray:
    kind = [(axis, f"{order}f4") for axis in "xyz"]
    rows = np.zeros(count, [*kind, ("rgb", f"{order}f4"), ("ring", f"{order}u2")])
    for number, axis in enumerate("xyz"):
        rows[axis] = np.arange(count) * 8 + number
    rows["rgb"] = (np.arange(count, dtype=np.uint32) + 0x0A0B00).view(np.float32)
    rows["ring"] = np.arange(count) + 300
    return rows


def write_db3(path: Path, topics: dict[str, list[Any]]) -> None:
    """Write a database of rosbag2 by SQL alone."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT)")
        database.execute("INSERT INTO schema VALUES (3, 'humble')")
        database.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, "
            "serialization_format TEXT, offered_qos_profiles TEXT)"
        )
        database.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
            "data BLOB)"
        )
        for number, (name, messages) in enumerate(topics.items()):
            row = (number, name, TYPE, "cdr", "")
            database.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?)", row)
            for time, message in enumerate(messages):
                content = bytes(STORE.serialize_cdr(message, TYPE))
                database.execute(
                    "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
                    (number, time, content),
                )
    database.close()


@pytest.mark.parametrize("compression", ["none", "bz2"])
@pytest.mark.parametrize("frame", [0, 1])
def test_bags_of_ros_1_are_read_exactly(compression: str, frame: int) -> None:
    table = read_content(FILES / f"rosbag_{compression}.bag", ReadOptions(frame=frame))
    expected = np.load(FILES / f"rosbag_{frame}.npy")
    assert np.array_equal(table.points, expected[:, :3], equal_nan=True)
    assert np.array_equal(table.extra["intensity"], expected[:, 3])
    assert np.array_equal(table.colors @ [1 << 16, 1 << 8, 1], expected[:, 4])
    assert (table.up, table.unit_meters) == ("z", 1.0)
    assert table.notes == (f"message {frame} of 2 of topic /cam/depth/points is read",)


def test_mcap_files_of_another_writer_are_read_exactly() -> None:
    for frame, expected in enumerate(np.load(FILES / "mcap_ros2.npy")):
        options = ReadOptions(topic="points", frame=frame)
        table = read_content(FILES / "mcap_ros2.mcap", options)
        assert np.array_equal(table.points, expected[:, :3])
        assert table.extra["ring"].dtype == np.uint16
        assert np.array_equal(table.extra["ring"], expected[:, 3])
        assert np.array_equal(table.normals, expected[:, 4:7])
        assert np.array_equal(table.colors @ [1 << 16, 1 << 8, 1], expected[:, 7] % 2**24)
    assert (
        len(read_content(FILES / "mcap_ros2.mcap", ReadOptions(topic="/back/points")).points) == 4
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ReadOptions(), r"several topics, .* topic=<name>: /back/points \(1\), /points \(3\)"),
        (ReadOptions(topic="/log"), r"no topic /log, .*/points \(3\)"),
        (ReadOptions(topic="/points", frame=3), "has 3 messages, frame=3 .* from 0 to 2"),
        (ReadOptions(topic="/points", frame=-1), "frame=-1 .* from 0 to 2"),
    ],
)
def test_missing_topics_and_frames_are_explained(options: ReadOptions, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"mcap_ros2\.mcap: .*{reason}"):
        read_ros(FILES / "mcap_ros2.mcap", options)


def test_databases_are_read_alone_and_in_folders(tmp_path: Path) -> None:
    rows = make_rows()
    write_db3(tmp_path / "a.db3", {"/empty": [], "/points": [make_message(rows)]})
    table = read_content(tmp_path / "a.db3")
    assert np.array_equal(table.points, np.stack([rows[axis] for axis in "xyz"], 1))
    assert np.array_equal(table.extra["ring"], rows["ring"])
    assert table.colors.tolist() == [[10, 11, n] for n in range(4)]
    assert table.notes == ()
    for plugin in (StoragePlugin.SQLITE3, StoragePlugin.MCAP):
        folder = tmp_path / plugin.name
        with Writer(folder, version=9, storage_plugin=plugin) as writer:
            connection = writer.add_connection("/points", TYPE, typestore=STORE)
            for time in range(2):
                content = STORE.serialize_cdr(make_message(make_rows(time + 1)), TYPE)
                writer.write(connection, time, content)
        assert find_shape_files(folder) == {folder: Path(plugin.name)}
        assert len(read_shape(folder, options=ReadOptions(frame=1)).points) == 2


def test_recordings_without_clouds_list_their_topics(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/chat", "std_msgs/msg/String", typestore=STORE)
        message = STORE.types["std_msgs/msg/String"]("hi")
        writer.write(connection, 0, STORE.serialize_cdr(message, "std_msgs/msg/String"))
    with pytest.raises(ValueError, match=r"no topic of .*PointCloud2, only /chat \(std_msgs"):
        read_content(tmp_path / "bag")


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order_padding_and_rows_of_messages_are_followed(order: str) -> None:
    rows = make_rows(6, order)
    table = convert_message(make_message(rows))
    assert table.points.dtype == np.dtype(np.float32)
    padded = np.full((2, 3 * rows.dtype.itemsize + 5), 255, np.uint8)
    padded[:, :-5] = np.frombuffer(rows.tobytes(), np.uint8).reshape(2, -1)
    message = make_message(rows, 3, data=padded.ravel(), row_step=padded.shape[1])
    for other in (convert_message(message), convert_message(make_message(rows, 2))):
        assert np.array_equal(other.points, table.points)
        assert np.array_equal(other.colors, table.colors)
        assert np.array_equal(other.extra["ring"], rows["ring"])


def test_counts_of_zero_and_several_values_are_read() -> None:
    rows = np.zeros(2, [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("normal", "<f4", 3)])
    rows["normal"][:, 2] = 1
    message = make_message(rows)
    message.fields[0].count = 0
    table = convert_message(message)
    assert table.points.dtype == np.float64
    assert table.normals.tolist() == [[0, 0, 1]] * 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 9}, "1 x 9 points of 18 bytes, it has 72"),
        ({"height": 3}, "3 x 4 points"),
        ({"point_step": 9}, "take 18 bytes of a point, it has 9"),
        ({"width": 0}, "no points"),
    ],
)
def test_messages_whose_sizes_do_not_fit_are_refused(changes: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        convert_message(replace(make_message(make_rows()), **changes))


def test_unknown_and_repeated_fields_are_refused() -> None:
    message = make_message(make_rows())
    message.fields[0].datatype = 99
    with pytest.raises(ValueError, match="'x' has the unknown type 99"):
        convert_message(message)
    message.fields[0].datatype, message.fields[0].name = 7, "y"
    with pytest.raises(ValueError, match="two fields 'y'"):
        convert_message(message)
    message.fields = [SimpleNamespace(name="u", offset=0, datatype=7, count=1)]
    with pytest.raises(ValueError, match="fields u, not x, y and z"):
        convert_message(message)


def test_damaged_files_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    for suffix, reason in ((".bag", "no bag header"), (".mcap", "no MCAP"), (".db3", "no SQLite")):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(bytes(99))
        with pytest.raises(ValueError, match=rf"a{suffix}: .*{reason}"):
            read_content(path)
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(99))
    with pytest.raises(ValueError, match="rosbag fix"):
        read_content(tmp_path / "a.bag")
    for name in ("rosbag_none.bag", "mcap_ros2.mcap"):
        content = (FILES / name).read_bytes()
        (tmp_path / name).write_bytes(content[:1000])
        with pytest.raises(ValueError, match=name):
            read_content(tmp_path / name)


def test_mcap_files_of_another_profile_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    header = struct.pack("<I", 4) + b"ros1" + struct.pack("<I", 0)
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 1, len(header)) + header)
    with pytest.raises(ValueError, match="profile is 'ros1', not ros2: record"):
        check_recording(path)


def test_chunks_that_unpack_to_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rosbag_bz2.bag", "mcap_ros2.mcap"):
        check_recording(FILES / name)
    monkeypatch.setattr(ros_checks, "MIN_UNPACK_LIMIT", 100)
    monkeypatch.setattr(ros_checks, "MAX_UNPACK_RATIO", 0)
    for name in ("rosbag_bz2.bag", "mcap_ros2.mcap"):
        with pytest.raises(ValueError, match="the limit for its size is 100"):
            check_recording(FILES / name)


def test_recordings_name_the_package_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.rosbag1", None)
    with pytest.raises(ValueError, match=r"rosbags: pip install 'recon-pointcloud\[ros\]'"):
        read_ros(FILES / "mcap_ros2.mcap", ReadOptions())
