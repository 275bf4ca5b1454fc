"""Where weights come from: files, folders that were saved for others, and the Hugging Face Hub."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

CONFIG_FILENAME, WEIGHTS_FILENAME = "config.json", "model.safetensors"
MAX_CONFIG_BYTES, MAX_TENSORS = 2**24, 2**16
"""Bytes of a configuration, and tensors of the largest file."""
_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")


def locate_checkpoint(checkpoint: str | Path) -> Path:
    """Return the file or folder that a source means, fetched from the Hugging Face Hub if need be.

    A string `owner/name` or `owner/name@revision` that is no path here is a repository of the Hub;
    with HF_HUB_OFFLINE=1 its copy in the cache is used. Raises FileNotFoundError for one that
    cannot be had. What is no such name is returned as a path, there or not.
    """
    path = Path(checkpoint)
    found = None if isinstance(checkpoint, Path) else _HUB_ID.fullmatch(checkpoint)
    if found is None or path.exists() or path.parent.is_dir() or path.suffix in _FILES:
        return path
    return _fetched(checkpoint, found["repo"], found["revision"])


def _fetched(source: str | Path, repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=[CONFIG_FILENAME, WEIGHTS_FILENAME]
        )
    except Exception as error:  # of the Hub or of the network
        reason = " ".join(str(error).split("\n")[0].split())
        raise FileNotFoundError(
            f"{source}: no such file, and not to be had from the Hugging Face Hub ({reason})"
        ) from error
    return Path(folder)


def is_safetensors_checkpoint(path: Path) -> bool:
    """Tell whether a path is a folder of configuration and weights, or the weights in it."""
    return (
        path.suffix == ".safetensors"
        or (path / CONFIG_FILENAME).is_file()
        or (path / WEIGHTS_FILENAME).is_file()
    )


def _check_count(path: Path) -> None:
    """Raise ValueError for a file of so many tensors that to make them takes without end."""
    with path.open("rb") as file:
        head = file.read(min(2**27, int.from_bytes(file.read(8), "little")))
    if (count := head.count(b'"data_offsets"')) > MAX_TENSORS:
        raise ValueError(f"it has {count:,} tensors, {MAX_TENSORS:,} are read")


def read_safetensors_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a saved folder, or its weights by name: its configuration and its named tensors.

    Raises FileNotFoundError for a missing part of it and ValueError that names a broken one.
    """
    folder = path if path.is_dir() else path.parent
    weights = folder / WEIGHTS_FILENAME if path.is_dir() else path
    for part in (folder / CONFIG_FILENAME, weights):
        if not part.is_file():
            raise FileNotFoundError(
                f"{part}: missing: {CONFIG_FILENAME} and {WEIGHTS_FILENAME} belong together"
            )
    if (size := (folder / CONFIG_FILENAME).stat().st_size) > MAX_CONFIG_BYTES:
        raise ValueError(f"{folder / CONFIG_FILENAME}: has {size:,} bytes, no configuration does")
    try:
        config = json.loads((folder / CONFIG_FILENAME).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG_FILENAME}: not JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("network"), dict):
        raise ValueError(
            f"{folder / CONFIG_FILENAME}: not of this library: it describes no `network`"
        )
    try:
        _check_count(weights)
        return config, load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{weights}: corrupt ({error}): fetch it again") from error
