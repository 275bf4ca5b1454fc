"""Define the prepared layout: the files of a data set that was checked and repacked once.

    <root>/recon.json                 name of the data set, settings and splits
    <root>/<split>/index.json         ids, labels, classes, sentences; size and checksum of shards
    <root>/<split>/00000.safetensors  a shard: concatenated clouds and image files, and offsets

All files are written atomically, and recon.json is written last.
"""

import hashlib
from pathlib import Path

from recon.data.io.arrays import read_json

MANIFEST_NAME = "recon.json"
"""File that marks a folder as completely prepared."""
INDEX_NAME = "index.json"
"""File in the folder of each split that describes its samples and shards."""
FORMAT_VERSION = 1
"""Version of the layout; other versions are refused."""
POINT_FIELDS = ("points", "normals", "colors", "point_labels")
"""Fields of `Cloud` that are stored."""


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"{number:05d}.safetensors"


def checksum(content: bytes) -> str:
    """Return the SHA-256 hash of some bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_prepared(root: Path) -> bool:
    """Return whether a folder has the prepared layout; raise ValueError if it is incomplete."""
    if (root / MANIFEST_NAME).is_file():
        return True
    if any(root.glob(f"*/{shard_name(0)}*")):
        raise ValueError(
            f"{root}: its preparation was not finished: run the same `python -m recon.prepare` "
            "command again, it resumes"
        )
    return False


def prepared_splits(root: Path) -> list[str]:
    """Return the splits of a prepared folder in the order of its manifest, else an empty list."""
    if not is_prepared(root):
        return []
    available = {path.parent.name for path in root.glob(f"*/{INDEX_NAME}")}
    manifest = read_json(root / MANIFEST_NAME)
    splits = manifest.get("splits", []) if isinstance(manifest, dict) else []
    return [name for name in splits if name in available] or sorted(available)
