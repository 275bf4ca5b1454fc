"""Read a PointCloud2 message of a ROS 1 bag (.bag) or a ROS 2 recording (.mcap, .db3, a folder)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from recon.data.io.file_checks import UnsupportedContentError, wrap_read_errors
from recon.data.io.points.pcd import select_pcl_fields
from recon.data.io.points.ros_checks import check_recording
from recon.data.io.points.table import PointTable, ReadOptions

CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
FIELD_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""numpy's type for each `datatype` of a PointField."""
METADATA_FILE = "metadata.yaml"
"""Name of the file that makes a folder a ROS 2 recording."""
MAX_TOPICS = 20
"""Maximum number of topics that a message lists."""


def read_ros(path: Path, options: ReadOptions) -> PointTable:
    """Read message `options.frame` of `options.topic`, in the frame of its sensor.

    Messages are counted from 0 in the order of their time. Without a topic, the recording must have
    only one with clouds. Raises ValueError that names the file, with all topics or the number of
    messages if the selected one does not exist.
    """
    try:
        from rosbags.rosbag1 import Reader as Reader1
        from rosbags.rosbag2 import Reader as Reader2
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: reading ROS recordings needs rosbags: pip install 'recon-pointcloud[ros]'"
        ) from error
    with wrap_read_errors(path, "ROS recording"):
        for part in _list_files(path):
            check_recording(part)
        is_ros1 = path.suffix.lower() == ".bag"
        with (Reader1 if is_ros1 else Reader2)(path) as reader:
            counts = Counter[str]()
            for connection in reader.connections:
                if connection.msgtype == CLOUD_TYPE:
                    counts[connection.topic] += connection.msgcount
            topic = _select_topic(counts, options.topic, reader.connections)
            if not 0 <= options.frame < counts[topic]:
                raise UnsupportedContentError(
                    f"topic {topic} has {counts[topic]} messages, frame={options.frame} is none "
                    f"of them: choose from 0 to {counts[topic] - 1}"
                )
            selected = [c for c in reader.connections
                        if (c.topic, c.msgtype) == (topic, CLOUD_TYPE)]  # fmt: skip
            messages = islice(reader.messages(selected), options.frame, None)
            _, _, content = next(messages)
        table = convert_message(_deserialize(content, is_ros1))
    notes = (f"message {options.frame} of {counts[topic]} of topic {topic} is read",)
    return table._replace(up="z", unit_meters=1.0, notes=notes if counts[topic] > 1 else ())


def is_recording(folder: Path) -> bool:
    """Return whether a folder is a ROS 2 recording."""
    path = folder / METADATA_FILE
    return path.is_file() and b"rosbag2_bagfile_information" in path.read_bytes()[:4096]


def _list_files(path: Path) -> Sequence[Path]:
    """Return the files of a recording that are checked before reading."""
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".mcap", ".db3")]


def _select_topic(counts: Mapping[str, int], topic: str | None, connections: Sequence[Any]) -> str:
    """Return the selected topic, or the only one that has clouds."""
    present = [name for name, count in counts.items() if count]
    if topic is None and len(present) == 1:
        return present[0]
    if topic is not None and (name := "/" + topic.strip("/")) in counts:
        return name
    listed = [f"{name} ({counts[name]})" for name in sorted(counts)][:MAX_TOPICS]
    if not listed:
        others = sorted({f"{c.topic} ({c.msgtype})" for c in connections})[:MAX_TOPICS]
        raise UnsupportedContentError(
            f"it has no topic of {CLOUD_TYPE}, only {', '.join(others) or 'empty ones'}: record "
            "point clouds"
        )
    asked = "it has several topics" if topic is None else f"it has no topic {topic}"
    raise UnsupportedContentError(
        f"{asked}, choose one with clouds, of so many messages, by "
        f"topic=<name>: {', '.join(listed)}"
    )


def _deserialize(content: bytes, is_ros1: bool) -> Any:
    """Decode a PointCloud2 message by its standard definition, not by the one of the recording."""
    from rosbags.typesys import Stores, get_typestore

    if is_ros1:
        return get_typestore(Stores.ROS1_NOETIC).deserialize_ros1(content, CLOUD_TYPE)
    return get_typestore(Stores.LATEST).deserialize_cdr(content, CLOUD_TYPE)


def convert_message(message: Any) -> PointTable:
    """Return the points of a PointCloud2 message; raise ValueError where its sizes do not fit."""
    order = ">" if message.is_bigendian else "<"
    width, height, step = int(message.width), int(message.height), int(message.point_step)
    content = np.ascontiguousarray(message.data)
    layout = _build_layout(message.fields, order, step)
    row_bytes = max(int(message.row_step), width * step) if height > 1 else width * step
    needed = row_bytes * (height - 1) + width * step if height and width else 0
    if needed > content.nbytes:
        raise ValueError(
            f"a message declares {height} x {width} points of {step} bytes, it has "
            f"{content.nbytes} bytes"
        )
    if not needed:
        raise UnsupportedContentError("the message has no points: choose another frame=<number>")
    rows: Shaped[np.ndarray, "h w"] = np.ndarray(
        (height, width), layout, content.tobytes(), strides=(row_bytes, step)
    )
    points = rows.reshape(-1)
    columns: dict[str, np.ndarray] = {}
    for name in layout.names or ():
        values = points[name].astype(layout[name].base.newbyteorder("="))
        names = [name] if values.ndim == 1 else [f"{name}_{n}" for n in range(values.shape[1])]
        columns.update(zip(names, values.reshape(len(points), -1).T, strict=True))
    return select_pcl_fields(columns)


def _build_layout(fields: Sequence[Any], order: str, step: int) -> np.dtype[Any]:
    """Return the type of a point: values of several fields may overlap, and leave gaps."""
    names: list[str] = []
    formats: list[Any] = []
    for field in fields:
        if field.datatype not in FIELD_TYPES:
            raise ValueError(f"its field {field.name!r} has the unknown type {field.datatype}")
        if field.name in names:
            raise ValueError(f"it has two fields {field.name!r}")
        kind = f"{order}{FIELD_TYPES[field.datatype]}"
        names.append(field.name)
        formats.append((kind, (int(field.count),)) if field.count > 1 else kind)
    offsets = [int(field.offset) for field in fields]
    ends = [start + np.dtype(kind).itemsize for start, kind in zip(offsets, formats, strict=True)]
    if max(ends, default=0) > step:
        raise ValueError(f"its fields take {max(ends)} bytes of a point, it has {step}")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
