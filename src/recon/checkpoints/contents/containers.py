"""Find the weights of a network in a checkpoint of any program."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recon.utils.printable import join_names

MAX_CONTAINER_DEPTH = 4
"""Maximum number of nested dictionaries around the weights."""
MAX_LISTED = 5
CONTAINER_KEYS = (
    "base_model", "model_state_dict", "model", "state_dict", "net", "network", "module", "student",
    "weights",
)  # fmt: skip
"""Usual keys of weights; the first that is present is read."""
WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that torch.compile and other wrappers of modules add."""
AVERAGE = re.compile(
    r"(^|[._/])(ema|swa|averaged?|avg|shadow|teacher|momentum|target|slow)([._/]|$)", re.I
)
"""Names of averaged weights."""
FROZEN_PARTS = re.compile(r"(^|\.)((img|text)_encoder|dvae_tokenizer)\.")
"""Frozen parts of the files of ReCon and ACT, which are other networks."""
COUNTERS = ("n_averaged", "initted", "step")
"""Names of averaged models that are not weights."""
_NETWORK = re.compile(
    r"(?P<prefix>([\w-]+\.)*?)("
    r"((MAE|ACT|Dis)_encoder\.)?encoder\.(first_conv\.0|local_mlp\.lins\.0)"
    r"|((encoder\.)?(generative|contrastive)\.|encoder\.|tower\.)?embed\.point_in"
    r")\.weight"
)
"""A weight that each network has: the first layer of its patch embedding."""


class FoundWeights(NamedTuple):
    """Weights of one network in a checkpoint."""

    keys: tuple[str, ...]
    """Keys of the dictionaries around them, from outside."""
    prefix: str
    """What all of their names begin with, removed in `state`."""
    state: dict[str, Any]
    others: tuple[str, ...] = ()
    """Names of the same dictionary that are outside of the network."""

    @property
    def place(self) -> str:
        """Return the keys and the prefix, for messages."""
        keys, prefix = ".".join(self.keys), f"{self.prefix}*" if self.prefix else ""
        return "/".join(filter(None, (keys, prefix))) or "the file itself"


def walk_tensors(
    content: Mapping[Any, Any], keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the dictionaries with named tensors in a checkpoint, with the keys around them."""
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in named.values()):
        yield keys, named
    if len(keys) < MAX_CONTAINER_DEPTH:
        for key, value in named.items():
            if isinstance(value, Mapping):
                yield from walk_tensors(value, (*keys, key))


def unwrap_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what wrappers of modules, such as torch.compile, add to names."""
    return {WRAPPERS.sub("", name): value for name, value in state.items()}


def find_weights(path: Path, checkpoint: Mapping[str, Any]) -> FoundWeights | None:
    """Return the weights of the network in a checkpoint; None if no names are known.

    Weights under usual keys come first, averaged ones last. A warning names other networks, and
    weights outside the network. Raises ValueError if the choice is not clear.
    """
    candidates = [
        found
        for keys, named in walk_tensors(checkpoint)
        for found in _split_by_prefix(keys, unwrap_names(named))
    ]
    if not candidates:
        return None
    best, *others = sorted(candidates, key=_rank)
    others = [other for other in others if not _are_equal(best, other)]
    if others and _rank(others[0])[:-1] == _rank(best)[:-1]:
        places = join_names((found.place for found in (best, *others)), MAX_LISTED)
        raise ValueError(
            f"{path}: holds several networks, {places}: save the one to use in a file of its own"
        )
    if others:
        places = join_names((other.place for other in others), MAX_LISTED)
        warnings.warn(
            f"{path}: reads the weights in {best.place}, not those in {places}, which would need a "
            "file of their own",
            stacklevel=2,
        )
    if best.others:
        warnings.warn(
            f"{path}: ignores weights outside of the network in {best.place}: "
            f"{join_names(best.others, MAX_LISTED)}",
            stacklevel=2,
        )
    return best


def _split_by_prefix(keys: tuple[str, ...], named: dict[str, Any]) -> Iterator[FoundWeights]:
    """Yield the networks of one dictionary, by what the names of their weights begin with."""
    matches = (_NETWORK.fullmatch(name) for name in named if not FROZEN_PARTS.search(name))
    prefixes = sorted({match["prefix"] for match in matches if match}, key=len, reverse=True)
    remaining, groups = dict(named), []
    for prefix in prefixes:
        names = [name for name in remaining if name.startswith(prefix)]
        groups.append({name.removeprefix(prefix): remaining.pop(name) for name in names})
    others = tuple(name for name in remaining if name not in COUNTERS)
    for prefix, state in zip(prefixes, groups, strict=True):
        yield FoundWeights(keys, prefix, state, others)


def _rank(found: FoundWeights) -> tuple[bool, int, int, str]:
    """Return the place of a network in the order of choice."""
    average = any(AVERAGE.search(part) for part in (*found.keys, found.prefix))
    return average, _rank_names(found.keys), _rank_names(found.prefix.split(".")), found.place


def _rank_names(names: Sequence[str]) -> int:
    known = [CONTAINER_KEYS.index(name) for name in names if name in CONTAINER_KEYS]
    return min(known, default=len(CONTAINER_KEYS) if any(names) else 0)


def _are_equal(first: FoundWeights, second: FoundWeights) -> bool:
    """Tell whether two networks have the same weights, as under two keys of one file."""
    a, b = first.state, second.state
    return a.keys() == b.keys() and all(
        isinstance(value, Tensor)
        and isinstance(b[name], Tensor)
        and (value is b[name] or (value.dtype == b[name].dtype and torch.equal(value, b[name])))
        for name, value in a.items()
    )
