"""Teachers that read what a live one said: features computed once, in one safe file."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from recon.teachers.base import Teacher
from recon.utils.atomic_write import write_atomic
from recon.utils.printable import check_printable


class FeatureCache(NamedTuple):
    """Features of named things, and how they lie in feature space."""

    names: Sequence[str]
    features: Float[Tensor, "n k d"]
    """K features of each thing: of its augmented views, or of the one sentence."""
    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, ""]
    """Overall standard deviation about the mean."""
    teacher: str
    """Who said it."""


def write_cache(path: str | Path, cache: FeatureCache) -> None:
    """Write a cache as one safetensors file, in one step: a killed run leaves nothing behind."""
    about = {"names": json.dumps(list(cache.names)), "teacher": cache.teacher}
    tensors = {"features": cache.features, "mean": cache.mean, "deviation": cache.deviation}
    content = save({key: t.contiguous() for key, t in tensors.items()}, metadata=about)
    write_atomic(Path(path), content)


def read_cache(path: str | Path) -> FeatureCache:
    """Read a cache; raise FileNotFoundError, or ValueError for a file that is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such teacher cache: make it with scripts/cache_teachers.py"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in ("features", "mean", "deviation")}
        cache = FeatureCache(json.loads(about["names"]), **tensors, teacher=about["teacher"])
        _check(cache)
    except Exception as error:  # damaged files fail in any way
        why = str(error).split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{path}: not a teacher cache ({why}): make it anew") from error
    return cache


def _check(cache: FeatureCache) -> None:
    """Raise ValueError where names and features do not fit."""
    names, (features, mean, deviation) = cache.names, cache[1:4]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are no list of texts")
    check_printable(names, "its list")
    fits = features.ndim == 3 and len(features) == len(names) and features.numel() > 0
    fits = fits and mean.shape == features.shape[2:] and deviation.ndim == 0
    if not fits or not all(t.is_floating_point() and t.isfinite().all() for t in cache[1:4]):
        raise ValueError(f"it has {len(names)} names, and features {tuple(features.shape)}")
    if float(deviation) <= 0 or len({*names}) < len(names):
        raise ValueError(f"its deviation is {float(deviation)}, or a name is there twice")


class CachedTeacher(Teacher):
    """Features from a file in place of a live teacher.

    With `standardize` features are centred and divided by their overall deviation, as measured on
    the data they were computed for.

    Raises FileNotFoundError or ValueError for a file that is missing, no cache, or of another
    width than `dim`.
    """

    name_key: str
    features: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, path: str | Path, dim: int, *, standardize: bool = False) -> None:
        super().__init__(dim)
        self.path, cache = path, read_cache(path)
        if (found := cache.features.shape[-1]) != dim:
            raise ValueError(
                f"{path}: caches {found} features of {cache.teacher}, but dim is set to {dim}"
            )
        self._row = {name: row for row, name in enumerate(cache.names)}
        offset, scale = torch.zeros(dim), torch.ones(())
        if standardize:
            offset, scale = cache.mean.float(), cache.deviation.float()
        self.register_buffer("features", cache.features, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    @property
    def names(self) -> list[str]:
        """What is cached, in its order."""
        return list(self._row)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:
        lacking = [name for name in names[self.name_key] if name not in self._row]
        if lacking:
            raise ValueError(
                f"{self.path}: made for other data: it lacks {len(lacking)} of "
                f"{len(names[self.name_key])} entries, among them {lacking[0]!r}; "
                "make it for these data with scripts/cache_teachers.py"
            )

    def look_up(self, names: Sequence[str], view: Tensor | int = 0) -> Float[Tensor, "b d"]:
        """Return the cached feature of each named thing; raise ValueError for one not cached."""
        self.check_coverage({self.name_key: names})
        rows = torch.tensor([self._row[name] for name in names], device=self.features.device)
        return (self.features[rows, view].float() - self.offset) / self.scale


class CachedImageTeacher(CachedTeacher):
    """One of the K cached features of a cloud's images, chosen by the sample's seed."""

    keys = ("id", "seed")
    name_key = "id"

    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.look_up(batch["id"], batch["seed"] % self.features.shape[1])


class CachedTextTeacher(CachedTeacher):
    """The cached feature of a sentence."""

    keys = ("text",)
    name_key = "text"

    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.look_up(batch["text"])
