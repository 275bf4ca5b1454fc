"""Find a checkpoint on disk or on the Hugging Face Hub, and read safetensors folders."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from recon.utils.network import explain_unreachable_hub

CONFIG_FILENAME, WEIGHTS_FILENAME = "config.json", "model.safetensors"
MAX_CONFIG_BYTES, MAX_TENSORS = 2**24, 2**16
"""Maximum size of a config.json in bytes, and maximum number of tensors in a weights file."""
_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_OWN_NAME = "embed.point_in.weight"
"""End of a name that every network of this library has."""
_CHECKPOINT_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")


def locate_checkpoint(checkpoint: str | Path) -> Path:
    """Return the local path of a checkpoint; download it from the Hugging Face Hub if needed.

    A string `owner/name` or `owner/name@revision` that is not a local path is a Hub repository.
    With HF_HUB_OFFLINE=1 its cached copy is used. Any other string is returned as a path, which may
    not exist. Raises FileNotFoundError for a repository that is unavailable.
    """
    path = Path(checkpoint)
    hub_id = None if isinstance(checkpoint, Path) else _HUB_ID.fullmatch(checkpoint)
    is_local = path.exists() or path.parent.is_dir() or path.suffix in _CHECKPOINT_SUFFIXES
    if hub_id is None or is_local:
        return path
    return _download_snapshot(checkpoint, hub_id["repo"], hub_id["revision"])


def _download_snapshot(checkpoint: str | Path, repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    unreachable = explain_unreachable_hub()
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[CONFIG_FILENAME, WEIGHTS_FILENAME],
            local_files_only=unreachable is not None,
        )
    except Exception as error:  # from the Hub or from the network
        reason = unreachable or " ".join(str(error).split("\n")[0].split())
        raise FileNotFoundError(
            f"{checkpoint}: no such file, and unavailable on the Hugging Face Hub ({reason})"
        ) from error
    if not is_safetensors_checkpoint(Path(folder)):
        raise FileNotFoundError(f"{checkpoint}: the repository has no {WEIGHTS_FILENAME}")
    return Path(folder)


def is_safetensors_checkpoint(path: Path) -> bool:
    """Tell whether a path is a folder with a configuration or weights, or a safetensors file."""
    return (
        path.suffix == ".safetensors"
        or (path / CONFIG_FILENAME).is_file()
        or (path / WEIGHTS_FILENAME).is_file()
    )


def _check_tensor_count(path: Path) -> None:
    """Raise ValueError for too many tensors: creating them would not finish."""
    with path.open("rb") as file:
        header = file.read(min(2**27, int.from_bytes(file.read(8), "little")))
    if (count := header.count(b'"data_offsets"')) > MAX_TENSORS:
        raise ValueError(f"it has {count:,} tensors, the maximum is {MAX_TENSORS:,}")


def read_safetensors_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the configuration and the named tensors of a saved folder or of its weights file.

    Weights of other programs have no configuration of this library: then it is empty. Raises
    FileNotFoundError if one of the two files is missing, and ValueError that names an unreadable
    file.
    """
    folder = path if path.is_dir() else path.parent
    weights_path = folder / WEIGHTS_FILENAME if path.is_dir() else path
    _require_part(weights_path)
    try:
        _check_tensor_count(weights_path)
        state = load_file(weights_path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{weights_path}: corrupt ({error}): fetch it again") from error
    config_path = folder / CONFIG_FILENAME
    is_own = any(name.endswith(_OWN_NAME) for name in state)
    if not config_path.is_file() and (weights_path.name != WEIGHTS_FILENAME or not is_own):
        return {}, state
    config = _read_config(_require_part(config_path))
    if isinstance(config, dict) and isinstance(config.get("network"), dict):
        return config, state
    if is_own:
        raise ValueError(f"{config_path}: not a configuration of this library: it has no `network`")
    return {}, state


def _require_part(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing: {CONFIG_FILENAME} and {WEIGHTS_FILENAME} belong together"
        )
    return path


def _read_config(path: Path) -> Any:
    if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise ValueError(
            f"{path}: has {size:,} bytes, a configuration has at most {MAX_CONFIG_BYTES:,}"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
