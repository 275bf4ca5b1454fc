"""Weights in: official .pth files and this library's checkpoints, every key accounted for."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor, nn

from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.decoder import Decoder
from recon.models.encoder import MODALITIES, Encoder
from recon.models.heads import linear_head, mlp_head
from recon.models.recon import Contrastive, PretrainingNetwork, Projections, ReCon
from recon.models.two_tower import Tower, Towers, TwoTowers
from recon.models.weights import FORMAT_KEY, Weights, count_blocks, read_checkpoint, weights_in

TASKS = ("pretrain", "classify")


def describe(model: PretrainingNetwork | Classifier) -> dict[str, Any]:
    """Return what a model's weights do not tell: heads, groups, patch size, names of classes."""
    grouper, trunk = model.grouper, _trunk(dict(model.named_parameters()))
    encoder = model.get_submodule(trunk)
    own: dict[str, Any] = {}
    if isinstance(encoder, Encoder):
        own["stop_gradient"] = encoder.stop_gradient
    if isinstance(model, Classifier) and model.names:
        own["classes"] = list(model.names)
    return own | {
        "num_heads": encoder.get_submodule("blocks.0.attn").heads,
        "num_groups": grouper.groups,
        "group_size": grouper.group_size,
        "skip_near_origin": grouper.skip_near_origin,
    }


def _trunk(names: Collection[str]) -> str:
    for trunk in ("encoder.generative", "generative"):
        if any(name.startswith(f"{trunk}.") for name in names):
            return trunk
    return "encoder"


class _Builder:
    """Build networks of the sizes that a set of weights has."""

    def __init__(self, weights: Weights, settings: dict[str, Any]) -> None:
        self.weights, self.state = weights, weights.state
        self.heads, self.stop_gradient = settings["num_heads"], settings["stop_gradient"]
        self.classes = settings["classes"]
        self.grouper = PatchGrouper(
            settings["num_groups"],
            settings["group_size"],
            skip_near_origin=settings["skip_near_origin"],
        )

    def _sizes(self, prefix: str, queries: list[str]) -> dict[str, Any]:
        return {
            "dim": self.weights.width(f"{prefix}.norm"),
            "depth": count_blocks(self.state, rf"{re.escape(prefix)}\.blocks\.(\d+)\."),
            "heads": self.heads,
            "queries": queries,
            "patch_widths": [
                self.weights.width(f"{prefix}.embed.{layer}")
                for layer in ("point_in", "point_out", "joint_in")
            ],
        }

    def encoder(self) -> Encoder:
        names = ("encoder.queries.tokens.", "encoder.queries.positions.")
        queries = self.weights.modalities(*names, released=MODALITIES)
        return Encoder(stop_gradient=self.stop_gradient, **self._sizes("encoder", queries))

    def tower(self, prefix: str, released: Sequence[str] = ()) -> Tower:
        names = (f"{prefix}.query_tokens.", f"{prefix}.query_positions.")
        return Tower(**self._sizes(prefix, self.weights.modalities(*names, released=released)))

    def pretraining(self) -> PretrainingNetwork:
        trunk = _trunk(self.state)
        dim = self.weights.width(f"{trunk}.norm")
        widths = {
            name: self.weights.width(f"projections.{name}{'.0' if name == 'cls' else ''}")
            for name in self.weights.modalities("projections.", released=("image", "text"))
        }
        projections = Projections(dim, widths)
        if not self.weights.has("decoder."):
            return Contrastive(self.grouper, self.encoder(), projections)
        decoder = Decoder(
            dim,
            depth=count_blocks(self.state, r"decoder\.blocks\.(\d+)\."),
            heads=self.heads,
            group_size=self.grouper.group_size,
        )
        if trunk == "generative":
            towers = self.tower("generative"), self.tower("contrastive", released=MODALITIES[1:])
            return TwoTowers(self.grouper, *towers, decoder, projections)
        return ReCon(self.grouper, self.encoder(), decoder, projections)

    def classifier(self) -> Classifier:
        encoder: Encoder | Towers
        if self.weights.has("encoder.generative."):
            encoder = Towers(self.tower("encoder.generative"), self.tower("encoder.contrastive"))
        else:
            encoder = self.encoder()
        layers = count_blocks(self.state, r"head\.(\d+)\.weight")
        last = max(int(name.split(".")[1]) for name in self.state if name.startswith("head."))
        head = linear_head if layers == 1 else mlp_head
        count = self.weights.width(f"head.{last}")
        return Classifier(self.grouper, encoder, count, head=head, names=self.classes)


def differences(expected: Mapping[str, Tensor], weights: Weights) -> dict[str, list[str]]:
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
    weights = Weights(path, checkpoint["state_dict"], official=False)
    if wrong := differences(task.state_dict(), weights):
        few = "; ".join(f"{len(keys)} {kind}, e.g. {keys[0]}" for kind, keys in wrong.items())
        raise ValueError(
            f"{path}: a training of another network or student ({few}): resume it with the "
            "options it began with, see config.yaml in the folder of its run"
        )


def _settings(weights: Weights, told: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
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
    defaults: dict[str, Any] = {"skip_near_origin": False, "stop_gradient": True, "classes": ()}
    if weights.classifier:  # released ones cannot tell, and all have this one
        defaults["group_size"] = 32
    settings = {**defaults, **told, **given}
    if lacking := [n for n in ("num_heads", "num_groups", "group_size") if n not in settings]:
        raise ValueError(
            f"{path}: the weights do not tell {', '.join(lacking)}: pass them to load, "
            "for the released base model num_heads=6, num_groups=64"
        )
    return settings


@overload
def load(
    source: str | Path,
    *,
    task: Literal["pretrain"] = "pretrain",
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> PretrainingNetwork: ...
@overload
def load(
    source: str | Path,
    *,
    task: Literal["classify"],
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> Classifier: ...
def load(
    source: str | Path,
    *,
    task: str = "pretrain",
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    skip_near_origin: bool | None = None,
) -> PretrainingNetwork | Classifier:
    """Load a network, in evaluation mode, from a file of weights.

    `source` is a checkpoint of this library or a released .pth, `task` what it was trained for:
    pretrain or classify. Width, depths and queries are read from the weights, `group_size` too
    where they hold a decoder; heads and groups are not in released files and must be given: base
    6, small 4, tiny 3 heads; 64 groups for 1,024 points. `skip_near_origin` copies the released
    sampling kernel's rule (see `farthest_point_sample`).

    Raises FileNotFoundError for a missing file and ValueError for an unknown task, a file that
    cannot be read without executing it or was trained for another task, an argument that is
    missing or contradicts the weights, and keys missing or left over, which are listed.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose {' or '.join(map(repr, TASKS))}")
    path = Path(source)
    checkpoint = read_checkpoint(path)
    weights = weights_in(path, checkpoint)
    if weights.classifier != (task == "classify"):
        held = "classify" if weights.classifier else "pretrain"
        raise ValueError(f"{path}: holds weights for task={held!r}, not for {task!r}")
    given = {
        "num_heads": num_heads,
        "num_groups": num_groups,
        "group_size": group_size,
        "skip_near_origin": skip_near_origin,
    }
    settings = _settings(weights, dict(checkpoint.get(FORMAT_KEY, {})), given)
    builder = _Builder(weights, settings)
    model = builder.classifier() if weights.classifier else builder.pretraining()
    if wrong := differences(model.state_dict(), weights):
        lists = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in wrong.items())
        raise ValueError(f"{path}: the weights do not fit the network; {lists}")
    model.load_state_dict(weights.state)
    return model.eval()
