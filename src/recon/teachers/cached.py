"""Read and write teacher features computed in advance, in one safetensors file."""

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
    """Teacher features of named samples, with their mean and deviation."""

    names: Sequence[str]
    features: Float[Tensor, "n k d"]
    """K features of each sample: of K augmented views, or of one sentence (K = 1)."""
    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, ""]
    """Standard deviation over all entries after subtracting the mean."""
    teacher: str
    """Description of the teacher."""


def write_cache(path: str | Path, cache: FeatureCache) -> None:
    """Write a cache as a safetensors file, atomically: no partial file is left if interrupted."""
    metadata = {"names": json.dumps(list(cache.names)), "teacher": cache.teacher}
    tensors = {"features": cache.features, "mean": cache.mean, "deviation": cache.deviation}
    content = save({key: t.contiguous() for key, t in tensors.items()}, metadata=metadata)
    write_atomic(Path(path), content)


def read_cache(path: str | Path) -> FeatureCache:
    """Read a cache; raise FileNotFoundError, or ValueError for a file that is not a cache."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such teacher cache: create it with scripts/cache_teachers.py"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in ("features", "mean", "deviation")}
        cache = FeatureCache(json.loads(metadata["names"]), **tensors, teacher=metadata["teacher"])
        _check_cache(cache)
    except Exception as error:  # damaged files raise errors of many types
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path}: not a teacher cache ({reason}): regenerate it with scripts/cache_teachers.py"
        ) from error
    return cache


def _check_cache(cache: FeatureCache) -> None:
    """Raise ValueError if names and features do not fit together."""
    names, (features, mean, deviation) = cache.names, cache[1:4]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are not a list of strings")
    check_printable(names, "its list")
    shapes_fit = features.ndim == 3 and len(features) == len(names) and features.numel() > 0
    shapes_fit = shapes_fit and mean.shape == features.shape[2:] and deviation.ndim == 0
    if not shapes_fit or not all(t.is_floating_point() and t.isfinite().all() for t in cache[1:4]):
        raise ValueError(
            f"its {len(names)} names, features of shape {tuple(features.shape)}, mean and "
            "deviation do not fit together, or are not finite floats"
        )
    if float(deviation) <= 0 or len({*names}) < len(names):
        raise ValueError(
            f"its deviation {float(deviation)} is not positive, or a name occurs twice"
        )


class CachedTeacher(Teacher):
    """A teacher that looks up its features in a cache.

    `standardize` centers features by the mean and divides them by the deviation of the cached data.

    Raises FileNotFoundError for a missing file, and ValueError for a file that is not a cache or
    whose features do not have width `dim`.
    """

    name_key: str
    features: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, path: str | Path, dim: int, *, standardize: bool = False) -> None:
        super().__init__(dim)
        self.path, cache = path, read_cache(path)
        if (width := cache.features.shape[-1]) != dim:
            raise ValueError(
                f"{path}: features of {cache.teacher} have width {width}, but dim is set to {dim}: "
                f"set dim to {width}"
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
        """Names of the cached samples, in the order of the file."""
        return list(self._row)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:
        missing = [name for name in names[self.name_key] if name not in self._row]
        if missing:
            raise ValueError(
                f"{self.path}: the cache was made for other data: it lacks {len(missing)} of "
                f"{len(names[self.name_key])} entries, for example {missing[0]!r}; "
                "create it for these data with scripts/cache_teachers.py"
            )

    def look_up(self, names: Sequence[str], view: Tensor | int = 0) -> Float[Tensor, "b d"]:
        """Return the cached feature of each name; raise ValueError for an unknown name."""
        self.check_coverage({self.name_key: names})
        rows = torch.tensor([self._row[name] for name in names], device=self.features.device)
        return (self.features[rows, view].float() - self.offset) / self.scale


class CachedImageTeacher(CachedTeacher):
    """Image features of clouds from a cache; the sample's seed chooses one of the K views."""

    keys = ("id", "seed")
    name_key = "id"

    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.look_up(batch["id"], batch["seed"] % self.features.shape[1])


class CachedTextTeacher(CachedTeacher):
    """Text features of sentences from a cache."""

    keys = ("text",)
    name_key = "text"

    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        return self.look_up(batch["text"])
