"""Read and validate the weights in a checkpoint or a released .pth, without executing its code."""

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
"""Key of a checkpoint's metadata: heads, patches and class names, which weights do not contain."""
PROVENANCE_KEY = "origin"
"""Key of a saved folder's provenance: data, recipe, hardware and metrics of its training."""
_PREFIX = "model."
ALLOWED_DTYPES = {
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
"""Data types of weights that are accepted."""
MAX_LISTED_NAMES, MAX_BLOCKS = 100, 512
"""Maximum number of names in a message, and of blocks in a network."""
MAX_FLOAT32 = torch.finfo(torch.float32).max


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values, or a saved folder; nothing in it is executed.

    Raises FileNotFoundError for a missing file. Raises ValueError that names the file for any other
    content; for a pickle that needs code, the message has a command that converts the file.
    """
    if path.exists() and is_safetensors_checkpoint(path):
        config, state = read_safetensors_checkpoint(path)
        named = {_PREFIX + name: tensor for name, tensor in state.items()}
        provenance = config.get(PROVENANCE_KEY, {})
        return {METADATA_KEY: config["network"], "state_dict": named, PROVENANCE_KEY: provenance}
    if path.is_dir():
        raise ValueError(f"{path}: is a folder: name a file in it, such as checkpoints/last.ckpt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        _check_archive(path)
        scan_pickle(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unrelated files raise any kind of error
        raise ValueError(f"{path}: {_explain_refusal(path, str(error) or repr(error))}") from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not named weights")
    if invalid_keys := [name for name in checkpoint if not isinstance(name, str)]:
        raise ValueError(f"{path}: has the key {invalid_keys[0]!r}, keys must be text")
    return dict(checkpoint)


def _explain_refusal(path: Path, message: str) -> str:
    """Return why a file was refused; if it needs code, add a command that converts it."""
    unpickler_error = re.search(r"WeightsUnpickler error:\s*(.*)", message)
    reason = unpickler_error[1] if unpickler_error else message.strip().split("\n")[0]
    refusal = f"not a checkpoint that can be read safely ({reason})"
    if not re.search("Unsupported (global|class|operand)|Trying to (call|instantiate)", reason):
        return refusal
    target = path.with_name(f"{path.stem}_weights.pth")
    convert = (
        f"import torch; checkpoint = torch.load({str(path)!r}, weights_only=False); "
        "keys = ('base_model', 'model_state_dict', 'model'); "
        "weights = next((checkpoint[k] for k in keys if k in checkpoint), checkpoint); "
        f"torch.save(weights, {str(target)!r})"
    )
    return (
        f"{refusal}; if you trust its author, save only its weights by this command, which "
        f"executes the code in the file: python -c {shlex.quote(convert)}"
    )


def _check_archive(path: Path) -> None:
    """Raise ValueError for an archive that is damaged, compressed or ambiguous.

    torch does not compare checksums: a damaged weight would go unnoticed.
    """
    if not is_zip_archive(path):
        return  # torch before 1.6: one stream; a truncated one fails to load
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {member.filename.lower() for member in members}
        if len(names) < len(members) or min(member.header_offset for member in members):
            raise ValueError("it contains two archives: copy it again")
        is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if is_compressed or sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("it unpacks to more bytes than the file has")
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of its entry {name} is wrong: copy it again")


class CheckpointWeights(NamedTuple):
    """The weights in a file, under the names of this library."""

    path: Path
    state_dict: dict[str, Tensor]
    has_official_keys: bool
    family: Family = "ReCon"
    """The released implementation that wrote an official file."""

    @property
    def kind(self) -> NetworkKind:
        """Kind of the network that the weights belong to."""
        if self.has_prefix("point_head."):
            return "segment"
        return "classify" if self.has_prefix("head.") else "pretrain"

    def display_name(self, name: str) -> str:
        """Return a weight's name in the file, followed by this library's name if it differs."""
        official = to_official_key(name, self.kind, self.family) if self.has_official_keys else name
        return name if official == name else f"{official} ({name})"

    def out_features(self, layer: str) -> int:
        """Return the number of outputs of a layer; raise ValueError if it is missing."""
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in self.state_dict:
                return len(self.state_dict[name])
        raise ValueError(
            f"{self.path}: not the weights of a pretrained ReCon; "
            f"missing: {self.display_name(f'{layer}.weight')}"
        )

    def has_prefix(self, prefix: str) -> bool:
        """Tell whether any name starts with a prefix."""
        return any(name.startswith(prefix) for name in self.state_dict)

    def find_modalities(self, *prefixes: str, official_modalities: Sequence[str] = ()) -> list[str]:
        """Return the modalities with weights under the prefixes.

        `official_modalities` are those that every released file must have.
        """
        required = official_modalities if self.has_official_keys else ()
        return [
            m
            for m in MODALITIES
            if m in required
            or any(n.startswith(tuple(b + m for b in prefixes)) for n in self.state_dict)
        ]


def extract_weights(path: Path, checkpoint: Mapping[str, Any]) -> CheckpointWeights:
    """Return a checkpoint's weights by this library's names; raise ValueError if it has none."""
    if METADATA_KEY in checkpoint:
        state = _select_tensors(path, checkpoint.get("state_dict"), checkpoint)
        model = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        return CheckpointWeights(path, model, has_official_keys=False)
    official_keys = ("base_model", "model_state_dict", "model")
    weights = next((checkpoint[key] for key in official_keys if key in checkpoint), checkpoint)
    state = _select_tensors(path, weights, checkpoint)
    return CheckpointWeights(
        path, from_official_state_dict(state), has_official_prefix(state), detect_family(state)
    )


def describe_family(path: Path, checkpoint: Mapping[str, Any]) -> str:
    """Return the name of the implementation that wrote a released file.

    Classifiers of Point-MAE and ACT have the same names and cannot be told apart.
    """
    weights = extract_weights(path, checkpoint)
    ambiguous = weights.family == "Point-MAE" and weights.kind == "classify"
    return "Point-MAE or ACT" if ambiguous else weights.family


def _select_tensors(path: Path, state: Any, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Check and return named tensors; raise ValueError for any other entry."""
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: holds no weights, only {sorted(map(str, checkpoint))}")
    named = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if others := [str(name) for name in state if name not in named]:
        raise ValueError(
            f"{path}: some entries are not weights: {', '.join(others[:MAX_LISTED_NAMES])}"
        )
    check_printable(named, path)
    _check_tensors(path, named)
    return named


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors that are not dense, not fully stored, or not finite."""
    for name, value in state.items():
        is_dense = value.layout == torch.strided and not (
            value.is_meta or value.is_nested or value.is_quantized
        )
        if not is_dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name!r} is not a dense tensor with all its values stored")
        if value.dtype not in ALLOWED_DTYPES:
            raise ValueError(
                f"{path}: {name!r} has type {value.dtype}, which no network of this library uses"
            )
        if value.is_floating_point() and value.numel() and not _is_finite(value):
            raise ValueError(
                f"{path}: {name!r} has values that are NaN or infinite: its training diverged; "
                "use an earlier checkpoint"
            )


def _is_finite(value: Tensor) -> bool:
    """Tell whether all values are finite in float32, the type of the networks."""
    low, high = value.aminmax()
    return bool(low >= -MAX_FLOAT32) and bool(high <= MAX_FLOAT32)


def count_blocks(names: Iterable[str], pattern: str) -> int:
    """Count the different indices that `pattern` captures in names.

    Raises ValueError for more than `MAX_BLOCKS`.
    """
    count = len({match[1] for name in names if (match := re.match(pattern, name))})
    if count > MAX_BLOCKS:
        raise ValueError(f"it has {count} blocks, the maximum is {MAX_BLOCKS}")
    return count


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Return a fingerprint of weights: 12 hexadecimal digits, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()[:12]
