"""Named weights in a file: official .pth files and this library's checkpoints, read safely."""

import hashlib
import re
import shlex
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recon.checkpoints.locate import is_safetensors_checkpoint, read_safetensors_checkpoint
from recon.checkpoints.official_keys import (
    Family,
    NetworkKind,
    detect_family,
    from_official_state_dict,
    has_official_prefix,
    to_official_key,
)
from recon.checkpoints.pickle_scanner import SAFE_GLOBALS, is_zip_archive, scan_pickle
from recon.models.encoder import MODALITIES
from recon.utils.printable import check_printable

METADATA_KEY = "recon"
"""Where a checkpoint of this library keeps what its weights do not tell."""
PROVENANCE_KEY = "origin"
"""Where a saved folder keeps what it was trained on, how, and what it is worth."""
_PREFIX = "model."
ALLOWED_DTYPES = {
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
"""Of numbers that weights are kept in."""
MAX_LISTED_NAMES, MAX_BLOCKS = 100, 512
"""Names that a message lists at most, and blocks of the deepest network."""
MAX_FLOAT32 = torch.finfo(torch.float32).max


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values, or a saved folder; nothing in it is executed.

    Raises FileNotFoundError for a missing file and ValueError that names one that holds
    something else, with the way to convert it.
    """
    if path.exists() and is_safetensors_checkpoint(path):
        config, state = read_safetensors_checkpoint(path)
        named = {_PREFIX + name: tensor for name, tensor in state.items()}
        origin = config.get(PROVENANCE_KEY, {})
        return {METADATA_KEY: config["network"], "state_dict": named, PROVENANCE_KEY: origin}
    if path.is_dir():
        raise ValueError(f"{path}: a folder: name a file in it, such as checkpoints/last.ckpt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        _check_archive(path)
        scan_pickle(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of anything else fails in any way
        raise ValueError(f"{path}: {_refusal(path, str(error) or repr(error))}") from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not named weights")
    if strange := [name for name in checkpoint if not isinstance(name, str)]:
        raise ValueError(f"{path}: holds {strange[0]!r}, which is no name of weights")
    return dict(checkpoint)


def _refusal(path: Path, message: str) -> str:
    """Say why a file was not read, and where it wanted to execute something, how to convert it."""
    refused = re.search(r"WeightsUnpickler error:\s*(.*)", message)
    reason = refused[1] if refused else message.strip().split("\n")[0]
    said = f"not a checkpoint that can be read safely ({reason})"
    if not re.search("Unsupported (global|class|operand)|Trying to (call|instantiate)", reason):
        return said
    target = path.with_name(f"{path.stem}_weights.pth")
    convert = (
        f"import torch; held = torch.load({str(path)!r}, weights_only=False); "
        "keys = ('base_model', 'model_state_dict', 'model'); "
        f"torch.save(next((held[k] for k in keys if k in held), held), {str(target)!r})"
    )
    return (
        f"{said}; if you trust whoever made it, keep its weights alone, once, which executes "
        f"what it holds: python -c {shlex.quote(convert)}"
    )


def _check_archive(path: Path) -> None:
    """Raise ValueError for a file that was damaged, or that unpacks to more than it holds.

    torch compares no checksums: a changed weight would go unnoticed.
    """
    if not is_zip_archive(path):
        return  # of torch before 1.6: one stream, which ends early where it is cut
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {member.filename.lower() for member in members}
        if len(names) < len(members) or min(member.header_offset for member in members):
            raise ValueError("it is two archives in one: copy it again")
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("it unpacks to more than it holds")
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of its part {name} differs: copy it again")


class CheckpointWeights(NamedTuple):
    """The weights in a file, under the names of this library."""

    path: Path
    state_dict: dict[str, Tensor]
    has_official_keys: bool
    family: Family = "ReCon"
    """Whose names an official file has."""

    @property
    def kind(self) -> NetworkKind:
        """What the network is for."""
        if self.has_prefix("point_head."):
            return "segment"
        return "classify" if self.has_prefix("head.") else "pretrain"

    def display_name(self, name: str) -> str:
        """Name a weight as the file does, and in brackets as this library does."""
        theirs = to_official_key(name, self.kind, self.family) if self.has_official_keys else name
        return name if theirs == name else f"{theirs} ({name})"

    def out_features(self, layer: str) -> int:
        """Return how many outputs a layer has; raise ValueError where the file lacks it."""
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in self.state_dict:
                return len(self.state_dict[name])
        raise ValueError(
            f"{self.path}: not the weights of a pretrained ReCon; "
            f"missing: {self.display_name(f'{layer}.weight')}"
        )

    def has_prefix(self, prefix: str) -> bool:
        """Tell whether any name begins so."""
        return any(name.startswith(prefix) for name in self.state_dict)

    def find_modalities(self, *prefixes: str, official_modalities: Sequence[str] = ()) -> list[str]:
        """Return the modalities that names speak of, and those that every released file has."""
        always = official_modalities if self.has_official_keys else ()
        return [
            m
            for m in MODALITIES
            if m in always
            or any(n.startswith(tuple(b + m for b in prefixes)) for n in self.state_dict)
        ]


def extract_weights(path: Path, checkpoint: Mapping[str, Any]) -> CheckpointWeights:
    """Return a checkpoint's weights by this library's names; raise ValueError for none."""
    if METADATA_KEY in checkpoint:
        state = _named_tensors(path, checkpoint.get("state_dict"), checkpoint)
        own = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        return CheckpointWeights(path, own, has_official_keys=False)
    known = ("base_model", "model_state_dict", "model")
    held = next((checkpoint[key] for key in known if key in checkpoint), checkpoint)
    state = _named_tensors(path, held, checkpoint)
    return CheckpointWeights(
        path, from_official_state_dict(state), has_official_prefix(state), detect_family(state)
    )


def describe_family(path: Path, checkpoint: Mapping[str, Any]) -> str:
    """Return whose released network a file holds; ACT's classifiers cannot be told apart."""
    held = extract_weights(path, checkpoint)
    ambiguous = held.family == "Point-MAE" and held.kind == "classify"
    return "Point-MAE or ACT" if ambiguous else held.family


def _named_tensors(path: Path, state: Any, held: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return named tensors as such; raise ValueError that names whatever else there is."""
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: holds no weights, only {sorted(map(str, held))}")
    named = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if others := [str(name) for name in state if name not in named]:
        raise ValueError(f"{path}: beside weights it holds {', '.join(others[:MAX_LISTED_NAMES])}")
    check_printable(named, path)
    _check_tensors(path, named)
    return named


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for what is no plain tensor, shows more than is stored, or is not finite."""
    for name, value in state.items():
        plain = value.layout == torch.strided and not (
            value.is_meta or value.is_nested or value.is_quantized
        )
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name!r} is no tensor that is stored as a whole")
        if value.dtype not in ALLOWED_DTYPES:
            raise ValueError(f"{path}: {name!r} holds {value.dtype}, as no network of ours does")
        if value.is_floating_point() and value.numel() and not _is_finite(value):
            raise ValueError(
                f"{path}: {name!r} holds numbers that are NaN or infinite: its training failed, "
                "take an earlier checkpoint"
            )


def _is_finite(value: Tensor) -> bool:
    """Tell whether all numbers of a tensor are finite in float32, which networks have."""
    low, high = value.aminmax()
    return bool(low >= -MAX_FLOAT32) and bool(high <= MAX_FLOAT32)


def count_blocks(names: Iterable[str], pattern: str) -> int:
    """Count the indices that `pattern` finds in names; raise ValueError for too many to build."""
    count = len({found[1] for name in names if (found := re.match(pattern, name))})
    if count > MAX_BLOCKS:
        raise ValueError(f"it has {count} blocks, {MAX_BLOCKS} are built")
    return count


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Return 12 hexadecimal digits that change with any weight, whatever file holds them."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return found.hexdigest()[:12]
