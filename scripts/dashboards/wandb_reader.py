"""Read the logged values of a .wandb file: protobuf records in LevelDB's log format."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto import wandb_internal_pb2

FILE_MAGIC = b":W&B"
FILE_HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
RECORD_HEADER = struct.Struct("<IHB")
"""CRC-32, length and fragment type of a record."""
FULL_FRAGMENT, FIRST_FRAGMENT, LAST_FRAGMENT = 1, 2, 4
"""Fragment types: a message that fits into a block is one full fragment."""


class RecordedRun(NamedTuple):
    """Contents of a .wandb file."""

    keys: dict[str, list[Any]]
    """Logged values by key, in order."""
    config: dict[str, Any]
    group: str
    tags: list[str]
    project: str
    artifacts: list[str]


def read_run(folder: Path) -> RecordedRun:
    """Read the newest .wandb file in a run's folder; raise ValueError if there is none.

    Older files are failed attempts to go online.
    """
    files = sorted(folder.rglob("*.wandb"), key=lambda path: path.parent.name.split("run-")[-1])
    if not files:
        raise ValueError(
            f"{folder}: contains no .wandb file: pass the folder of a run with logger=wandb"
        )
    run = RecordedRun({}, {}, "", [], "", [])
    for data in iter_records(files[-1]):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        run = _add_record(run, record)
    return run


def iter_records(path: Path) -> Iterator[bytes]:
    """Yield the messages of a .wandb file; raise ValueError for other or damaged files.

    A truncated last message, of a killed run, is skipped.
    """
    data = path.read_bytes()
    if data[: len(FILE_MAGIC)] != FILE_MAGIC:
        raise ValueError(f"{path}: not a .wandb file")
    position, fragments = FILE_HEADER_BYTES, list[bytes]()
    while position + RECORD_HEADER.size <= len(data):
        block_remainder = BLOCK_BYTES - position % BLOCK_BYTES
        if block_remainder < RECORD_HEADER.size:  # the end of a block is padded
            position += block_remainder
            continue
        header = data[position : position + RECORD_HEADER.size]
        checksum, length, kind = RECORD_HEADER.unpack(header)
        start = position + RECORD_HEADER.size
        body = data[start : start + length]
        if len(body) < length or kind == 0:
            return
        if zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"{path}: damaged at byte {position}")
        fragments = [body] if kind in (FULL_FRAGMENT, FIRST_FRAGMENT) else [*fragments, body]
        if kind in (FULL_FRAGMENT, LAST_FRAGMENT):
            yield b"".join(fragments)
        position = start + length


def _add_record(recorded: RecordedRun, record: Any) -> RecordedRun:
    for item in record.history.item:
        name = item.key or item.nested_key[0]  # media and tables have nested fields
        recorded.keys.setdefault(name, []).append(json.loads(item.value_json))
    for update in (*record.run.config.update, *record.config.update):
        recorded.config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
    if record.WhichOneof("record_type") == "artifact":
        recorded.artifacts.append(record.artifact.name)
    if record.WhichOneof("record_type") == "run":
        run = record.run
        return recorded._replace(group=run.run_group, tags=[*run.tags], project=run.project)
    return recorded
