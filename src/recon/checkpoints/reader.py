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

from recon.checkpoints.contents.containers import CONTAINER_KEYS, unwrap_names
from recon.checkpoints.contents.extraction import extract_external_state
from recon.checkpoints.contents.families import describe_foreign_family, recognize_family
from recon.checkpoints.contents.tensors import select_tensors
from recon.checkpoints.locate import is_safetensors_checkpoint, read_safetensors_checkpoint
from recon.checkpoints.official_keys import (
    Family,
    NetworkKind,
    detect_family,
    from_official_state_dict,
    has_official_prefix,
    to_official_key,
)
from recon.checkpoints.pickle_scanner import (
    SAFE_GLOBALS,
    is_zip_archive,
    read_pickle_texts,
    scan_pickle,
)
from recon.models.encoder import MODALITIES

METADATA_KEY = "recon"
"""Key of a checkpoint's metadata: heads, patches and class names, which weights do not contain."""
PROVENANCE_KEY = "origin"
"""Key of a saved folder's provenance: data, recipe, hardware and metrics of its training."""
_PREFIX = "model."
MAX_BLOCKS = 512
"""Maximum number of blocks in a network."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values, or a saved folder; nothing in it is executed.

    Raises FileNotFoundError for a missing file. Raises ValueError that names the file for any other
    content; for a pickle that needs code, the message has a command that converts the file.
    """
    if path.exists() and is_safetensors_checkpoint(path):
        config, state = read_safetensors_checkpoint(path)
        if not config:
            return {"state_dict": state}
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
    if family := recognize_family(read_pickle_texts(path)):
        return describe_foreign_family(family)
    target = path.with_name(f"{path.stem}_weights.pth")
    convert = (
        f"import torch; w = torch.load({str(path)!r}, weights_only=False); "
        "w = w.state_dict() if hasattr(w, 'state_dict') else w; "
        f"w = next((w[k] for k in {CONTAINER_KEYS} if k in w), w); "
        "w = w.state_dict() if hasattr(w, 'state_dict') else w; "
        f"torch.save({{k: v for k, v in w.items() if torch.is_tensor(v)}}, {str(target)!r})"
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
        state = select_tensors(path, checkpoint.get("state_dict"), checkpoint)
        named = unwrap_names(state).items()
        model = {k.removeprefix(_PREFIX): v for k, v in named if k.startswith(_PREFIX)}
        return CheckpointWeights(path, model, has_official_keys=False)
    state = extract_external_state(path, checkpoint)
    return CheckpointWeights(
        path, from_official_state_dict(state), has_official_prefix(state), detect_family(state)
    )


def describe_format(path: Path, checkpoint: Mapping[str, Any]) -> str:
    """Return the format of a file without this library's metadata.

    Classifiers of Point-MAE and ACT have the same names and cannot be told apart.
    """
    weights = extract_weights(path, checkpoint)
    if not weights.has_official_keys:
        return "weights by the names of this library, without metadata"
    ambiguous = weights.family == "Point-MAE" and weights.kind == "classify"
    return f"released {'Point-MAE or ACT' if ambiguous else weights.family} weights"


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
