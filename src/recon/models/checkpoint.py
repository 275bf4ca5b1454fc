"""Weights in: official .pth files and this library's checkpoints, every key accounted for."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import MODALITIES, Encoder
from recon.models.official import from_official, is_official, to_official
from recon.models.recon import Contrastive, PretrainingNetwork, Projections, ReCon
from recon.models.two_tower import Tower, TwoTowers

FORMAT_KEY = "recon"
"""Where a checkpoint of this library keeps what its weights do not tell."""


def describe(model: PretrainingNetwork) -> dict[str, Any]:
    """Return what a model's weights do not tell and `load` needs: heads, groups, patch size."""
    grouper, trunk = model.grouper, _trunk(dict(model.named_parameters()))
    encoder = model.get_submodule(trunk)
    stop = {"stop_gradient": encoder.stop_gradient} if isinstance(encoder, Encoder) else {}
    return stop | {
        "num_heads": encoder.get_submodule("blocks.0.attn").heads,
        "num_groups": grouper.groups,
        "group_size": grouper.group_size,
        "skip_near_origin": grouper.skip_near_origin,
    }


def _trunk(names: Iterable[str]) -> str:
    return "generative" if any(name.startswith("generative.") for name in names) else "encoder"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values; nothing in it is executed.

    Raises FileNotFoundError for a missing file and ValueError that names one that holds
    something else.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder: name a file in it, such as checkpoints/last.ckpt")
    if not path.exists():
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
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of anything else fails in any way
        refused = re.search(r"WeightsUnpickler error: (.*)", str(error))
        reason = refused[1] if refused else str(error).strip().split("\n")[0] or repr(error)
        raise ValueError(f"{path}: not a checkpoint that can be read safely ({reason})") from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path}: holds a {type(checkpoint).__name__}, not named weights")
    return dict(checkpoint)


class _Weights(NamedTuple):
    """The weights in a file, under the names of this library."""

    path: Path
    state: dict[str, Tensor]
    official: bool

    def listed(self, name: str) -> str:
        """Name a weight as the file does, and in brackets as this library does."""
        theirs = to_official(name) if self.official else name
        return name if theirs == name else f"{theirs} ({name})"

    def width(self, layer: str) -> int:
        """Return how many outputs a layer has; raise ValueError where the file lacks it."""
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in self.state:
                return len(self.state[name])
        raise ValueError(
            f"{self.path}: not the weights of a pretrained ReCon; "
            f"missing: {self.listed(f'{layer}.weight')}"
        )

    def has(self, beginning: str) -> bool:
        """Tell whether any name begins so."""
        return any(name.startswith(beginning) for name in self.state)

    def modalities(self, *beginnings: str, released: Sequence[str] = ()) -> list[str]:
        """Return the modalities that names speak of, and those that every released file has."""
        always = released if self.official else ()
        return [
            m
            for m in MODALITIES
            if m in always
            or any(n.startswith(tuple(b + m for b in beginnings)) for n in self.state)
        ]


def _weights(path: Path, checkpoint: Mapping[str, Any]) -> _Weights:
    if FORMAT_KEY in checkpoint:
        prefix = "model."
        state = checkpoint["state_dict"]
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return _Weights(path, own, official=False)
    state = checkpoint.get("base_model", checkpoint.get("model", checkpoint))
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: holds no weights, only {sorted(map(str, checkpoint))}")
    if others := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path}: beside weights it holds {', '.join(others)}")
    return _Weights(path, from_official(state), official=is_official(state))


def _count(names: Iterable[str], pattern: str) -> int:
    """Count the consecutive indices that `pattern` finds in the names."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def _build(
    weights: _Weights, *, num_heads: int, grouper: PatchGrouper, stop_gradient: bool
) -> PretrainingNetwork:
    """Build the network that a set of weights belongs to, its sizes read from them."""
    state, trunk = weights.state, _trunk(weights.state)
    dim = weights.width(f"{trunk}.norm")

    def sizes(prefix: str, queries: list[str]) -> dict[str, Any]:
        return {
            "depth": _count(state, rf"{prefix}\.blocks\.(\d+)\."),
            "heads": num_heads,
            "queries": queries,
            "patch_widths": [
                weights.width(f"{prefix}.embed.{layer}")
                for layer in ("point_in", "point_out", "joint_in")
            ],
        }

    def encoder() -> Encoder:
        names = ("encoder.queries.tokens.", "encoder.queries.positions.")
        queries = weights.modalities(*names, released=MODALITIES)
        return Encoder(dim, stop_gradient=stop_gradient, **sizes("encoder", queries))

    def tower(prefix: str, released: Sequence[str] = ()) -> Tower:
        names = (f"{prefix}.query_tokens.", f"{prefix}.query_positions.")
        return Tower(dim, **sizes(prefix, weights.modalities(*names, released=released)))

    widths = {
        name: weights.width(f"projections.{name}{'.0' if name == 'cls' else ''}")
        for name in weights.modalities("projections.", released=("image", "text"))
    }
    projections = Projections(dim, widths)
    if not weights.has("decoder."):
        return Contrastive(grouper, encoder(), projections)
    decoder = Decoder(
        dim,
        depth=_count(state, r"decoder\.blocks\.(\d+)\."),
        heads=num_heads,
        group_size=grouper.group_size,
    )
    if trunk == "generative":
        contrastive = tower("contrastive", released=("image", "text"))
        return TwoTowers(grouper, tower("generative"), contrastive, decoder, projections)
    return ReCon(grouper, encoder(), decoder, projections)


def _differences(expected: Mapping[str, Tensor], weights: _Weights) -> dict[str, list[str]]:
    """List the keys that are missing, left over or misshapen."""
    state = weights.state
    found = {
        "missing": [weights.listed(k) for k in expected if k not in state],
        "left over": [weights.listed(k) for k in state if k not in expected],
        "of another shape": [
            f"{weights.listed(k)} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
            for k, v in expected.items()
            if k in state and state[k].shape != v.shape
        ],
    }
    return {kind: keys for kind, keys in found.items() if keys}


def check_resumable(path: Path, task: nn.Module) -> None:
    """Raise ValueError where a training of `task` cannot go on from a file."""
    checkpoint = read_checkpoint(path)
    if FORMAT_KEY not in checkpoint or "loops" not in checkpoint:
        raise ValueError(
            f"{path}: holds no state of a training: resume from <run>/checkpoints/last.ckpt"
        )
    weights = _Weights(path, checkpoint["state_dict"], official=False)
    if wrong := _differences(task.state_dict(), weights):
        few = "; ".join(f"{len(keys)} {kind}, e.g. {keys[0]}" for kind, keys in wrong.items())
        raise ValueError(
            f"{path}: a training of another network or student ({few}): resume it with the "
            "options it began with, see config.yaml in the folder of its run"
        )


def _settings(weights: _Weights, told: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Join what the file tells with what the caller gave; only the grouping may be changed."""
    path = weights.path
    fixed = {"num_heads"} & told.keys()
    if weights.has("decoder."):
        told["group_size"] = weights.width("decoder.project") // 3
        fixed.add("group_size")
    given = {name: value for name, value in given.items() if value is not None}
    for name in fixed & given.keys():
        if given[name] != told[name]:
            raise ValueError(f"{path}: {name}={given[name]} contradicts the file's {told[name]}")
    settings = {"skip_near_origin": False, "stop_gradient": True, **told, **given}
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
    checkpoint = read_checkpoint(path)
    weights = _weights(path, checkpoint)
    given = {
        "num_heads": num_heads,
        "num_groups": num_groups,
        "group_size": group_size,
        "skip_near_origin": skip_near_origin,
    }
    settings = _settings(weights, dict(checkpoint.get(FORMAT_KEY, {})), given)
    grouper = PatchGrouper(
        settings["num_groups"],
        settings["group_size"],
        skip_near_origin=settings["skip_near_origin"],
    )
    model = _build(
        weights,
        num_heads=settings["num_heads"],
        grouper=grouper,
        stop_gradient=settings["stop_gradient"],
    )
    if wrong := _differences(model.state_dict(), weights):
        lists = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in wrong.items())
        raise ValueError(f"{path}: the weights do not fit the network; {lists}")
    model.load_state_dict(weights.state)
    return model.eval()
