"""What a run wrote into its .wandb file: LevelDB's log format, holding W&B's own messages."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = b":W&B", 32 * 1024
WHOLE, FIRST, LAST = 1, 2, 4


class RecordedRun(NamedTuple):
    """A run as its file tells it."""

    keys: dict[str, list[Any]]
    """What was logged under each key, in order."""
    config: dict[str, Any]
    group: str
    tags: list[str]
    project: str
    artifacts: list[str]


def read_run(folder: Path) -> RecordedRun:
    """Read the newest .wandb file below a run's folder; raise ValueError where there is none.

    Older ones are attempts to go online that failed.
    """
    files = sorted(folder.rglob("*.wandb"), key=lambda path: path.parent.name.split("run-")[-1])
    if not files:
        raise ValueError(f"{folder}: holds no .wandb file: name a run of logger=wandb")
    found = RecordedRun({}, {}, "", [], "", [])
    for data in iter_records(files[-1]):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        found = _add(found, record)
    return found


def iter_records(path: Path) -> Iterator[bytes]:
    """Yield the messages of a file; raise ValueError where it is none, or damaged.

    A last message that a killed run did not finish is left out.
    """
    data = path.read_bytes()
    if data[:4] != HEADER:
        raise ValueError(f"{path}: not a .wandb file")
    at, parts = 7, list[bytes]()
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too little of a block is left for a record
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        body = data[at + 7 : at + 7 + length]
        if len(body) < length or kind == 0:
            return
        if zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"{path}: damaged at byte {at}")
        parts = [body] if kind in (WHOLE, FIRST) else [*parts, body]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
        at += 7 + length


def _add(found: RecordedRun, record: Any) -> RecordedRun:
    for item in record.history.item:
        name = item.key or item.nested_key[0]  # pictures, clouds and tables have fields
        found.keys.setdefault(name, []).append(json.loads(item.value_json))
    for update in (*record.run.config.update, *record.config.update):
        found.config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
    if record.WhichOneof("record_type") == "artifact":
        found.artifacts.append(record.artifact.name)
    if record.WhichOneof("record_type") == "run":
        run = record.run
        return found._replace(group=run.run_group, tags=[*run.tags], project=run.project)
    return found
