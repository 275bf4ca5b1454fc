"""Weights in: official .pth files and this library's checkpoints, every key accounted for."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import MODALITIES, Encoder
from recon.models.recon import Contrastive, PretrainingNetwork, Projections, ReCon
from recon.models.two_tower import Tower, TwoTowers

FORMAT_KEY = "recon"
"""Where a checkpoint of this library keeps what its weights do not tell."""

# Official name -> ours, applied in order; a teacher's weights are frozen copies, not the student's.
_TEACHERS = re.compile(r"^(img|text)_encoder\.")
_RENAMES = [
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^module\.", ""),
        (r"^MAE_encoder\.(\w+)_token$", r"encoder.queries.tokens.\1"),
        (r"^MAE_encoder\.(cls|img|text)_pos$", r"encoder.queries.positions.\1"),
        (r"^Dis_encoder\.(\w+)_token$", r"contrastive.query_tokens.\1"),
        (r"^Dis_encoder\.(img|text)_pos$", r"contrastive.query_positions.\1"),
        (
            r"^MAE_encoder\.blocks\.blocks\.(\d+)\.(\w+)_contrast\.",
            r"encoder.queries.blocks.\1.\2.",
        ),
        (r"^MAE_encoder\.", "encoder."),
        (r"^Dis_encoder\.", "contrastive."),
        (r"^MAE_decoder\.", "decoder."),
        (r"^mask_token$", "decoder.mask_token"),
        (r"^decoder_pos_embed\.", "decoder.position."),
        (r"^increase_dim\.0\.", "decoder.project."),
        (r"^(cls|img|text)_proj\.", r"projections.\1."),
        (r"\.blocks\.blocks\.", ".blocks."),
        (r"\.pos_embed\.", ".position."),
        (r"\.encoder\.first_conv\.0\.", ".embed.point_in."),
        (r"\.encoder\.first_conv\.1\.", ".embed.point_norm."),
        (r"\.encoder\.first_conv\.3\.", ".embed.point_out."),
        (r"\.encoder\.second_conv\.0\.", ".embed.joint_in."),
        (r"\.encoder\.second_conv\.1\.", ".embed.joint_norm."),
        (r"\.encoder\.second_conv\.3\.", ".embed.joint_out."),
        (r"\.img(\.|$)", r".image\1"),
    )
]
_CONVOLUTION = re.compile(r"\.embed\.(point|joint)_(in|out)\.weight$|decoder\.project\.weight$")


def rename(official: str) -> str:
    """Return this library's name of a parameter of the released implementation."""
    for pattern, ours in _RENAMES:
        official = pattern.sub(ours, official)
    return official


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert released weights: our names, 1x1 convolutions as linear layers, no teachers.

    Names that the released implementation does not have pass through unchanged.
    """
    named = {rename(name): tensor for name, tensor in state.items() if not _TEACHERS.match(name)}
    if any(name.startswith("contrastive.") for name in named):  # two towers
        named = {re.sub(r"^encoder\.", "generative.", name): t for name, t in named.items()}
    return {
        name: tensor.squeeze(-1) if tensor.ndim == 3 and _CONVOLUTION.search(name) else tensor
        for name, tensor in named.items()
    }


def describe(model: PretrainingNetwork) -> dict[str, Any]:
    """Return what a model's weights do not tell and `load` needs: heads, groups, patch size."""
    grouper, trunk = model.grouper, _trunk(dict(model.named_parameters()))
    return {
        "num_heads": model.get_submodule(f"{trunk}.blocks.0.attn").heads,
        "num_groups": grouper.groups,
        "group_size": grouper.group_size,
        "skip_near_origin": grouper.skip_near_origin,
    }


def _trunk(names: Iterable[str]) -> str:
    return "generative" if any(name.startswith("generative.") for name in names) else "encoder"


def _read(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    # Official files keep numpy scalars beside the weights; nothing else is let in.
    scalar = np.float64(0).__reduce__()[0]
    numpy_types: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")},
    ]
    try:
        with torch.serialization.safe_globals(numpy_types):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: not a checkpoint that can be read safely ({reason})") from error


def _weights(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the weights in a file, under the names of this library."""
    if FORMAT_KEY in checkpoint:
        prefix = "model."
        state = checkpoint["state_dict"]
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    state = checkpoint.get("base_model", checkpoint.get("model", checkpoint))
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: holds no weights, only {sorted(map(str, checkpoint))}")
    return from_official(state)


def _count(names: Iterable[str], pattern: str) -> int:
    """Count the consecutive indices that `pattern` finds in the names."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def _build(
    state: Mapping[str, Tensor], *, num_heads: int, grouper: PatchGrouper
) -> PretrainingNetwork:
    """Build the network that a set of weights belongs to, its sizes read from them."""
    trunk = _trunk(state)
    dim = state[f"{trunk}.norm.weight"].shape[0]

    def sizes(prefix: str) -> dict[str, Any]:
        layers = ("point_in", "point_out", "joint_in")
        vectors = "queries.tokens" if trunk == "encoder" else "query_tokens"
        return {
            "depth": _count(state, rf"{prefix}\.blocks\.(\d+)\."),
            "heads": num_heads,
            "queries": [m for m in MODALITIES if f"{prefix}.{vectors}.{m}" in state],
            "patch_widths": [len(state[f"{prefix}.embed.{name}.weight"]) for name in layers],
        }

    widths = {
        name: len(state[key])
        for name in MODALITIES
        if (key := f"projections.{name}.{'0.' if name == 'cls' else ''}weight") in state
    }
    projections = Projections(dim, widths)
    if not any(name.startswith("decoder.") for name in state):
        return Contrastive(grouper, Encoder(dim, **sizes("encoder")), projections)
    decoder = Decoder(
        dim,
        depth=_count(state, r"decoder\.blocks\.(\d+)\."),
        heads=num_heads,
        group_size=grouper.group_size,
    )
    if trunk == "generative":
        generative, contrastive = (Tower(dim, **sizes(n)) for n in ("generative", "contrastive"))
        return TwoTowers(grouper, generative, contrastive, decoder, projections)
    return ReCon(grouper, Encoder(dim, **sizes("encoder")), decoder, projections)


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights; raise ValueError that lists every key missing, left over or misshapen."""
    expected = model.state_dict()
    wrong = {
        "missing": [k for k in expected if k not in state],
        "left over": [k for k in state if k not in expected],
        "of another shape": [
            f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
            for k, v in expected.items()
            if k in state and state[k].shape != v.shape
        ],
    }
    if any(wrong.values()):
        lists = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in wrong.items() if keys)
        raise ValueError(f"{path}: the weights do not fit the network; {lists}")
    model.load_state_dict(dict(state))


def _settings(
    path: Path, checkpoint: Mapping[str, Any], state: Mapping[str, Tensor], given: dict[str, Any]
) -> dict[str, Any]:
    """Join what the file tells with what the caller gave; only the grouping may be changed."""
    told = dict(checkpoint.get(FORMAT_KEY, {}))
    fixed = {"num_heads"} & told.keys()
    if (project := state.get("decoder.project.weight")) is not None:
        told["group_size"] = len(project) // 3
        fixed.add("group_size")
    given = {name: value for name, value in given.items() if value is not None}
    for name in fixed & given.keys():
        if given[name] != told[name]:
            raise ValueError(f"{path}: {name}={given[name]} contradicts the file's {told[name]}")
    settings = {"skip_near_origin": False, **told, **given}
    if lacking := [n for n in ("num_heads", "num_groups", "group_size") if n not in settings]:
        raise ValueError(
            f"{path}: the weights do not tell {', '.join(lacking)}: pass them to load, "
            "for the released base model num_heads=6, num_groups=64"
        )
    return settings


def load(
    source: str | Path,
    *,
    task: str = "pretrain",
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> PretrainingNetwork:
    """Load a pretrained network, in evaluation mode, from a file of weights.

    `source` is a checkpoint of this library or a released .pth. Width, depths and queries are
    read from the weights, `group_size` too where they hold a decoder; heads and groups are not in
    released files and must be given: base 6, small 4, tiny 3 heads; 64 groups for 1,024 points.
    `skip_near_origin` copies the released sampling kernel's rule (see `farthest_point_sample`).

    Raises FileNotFoundError for a missing file and ValueError for an unknown task, a file that
    cannot be read without executing it, an argument that is missing or contradicts the weights,
    and keys missing or left over, which are listed.
    """
    if task != "pretrain":
        raise ValueError(f"unknown task {task!r}: choose 'pretrain'")
    path = Path(source)
    checkpoint = _read(path)
    state = _weights(path, checkpoint)
    given = {
        "num_heads": num_heads,
        "num_groups": num_groups,
        "group_size": group_size,
        "skip_near_origin": skip_near_origin,
    }
    settings = _settings(path, checkpoint, state, given)
    grouper = PatchGrouper(
        settings["num_groups"],
        settings["group_size"],
        skip_near_origin=settings["skip_near_origin"],
    )
    try:
        model = _build(state, num_heads=settings["num_heads"], grouper=grouper)
    except KeyError as error:
        raise ValueError(
            f"{path}: not the weights of a pretrained ReCon, {error} is missing; "
            f"it holds {', '.join(state)}"
        ) from error
    _fill(model, state, path)
    return model.eval()
